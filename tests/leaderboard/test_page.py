"""The HTML page: its content, and in a real browser sorting, filtering and opening a run."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import msgspec
import pytest

from cissod_bench.evaluation import evaluate, load_evaluation
from cissod_bench.leaderboard.plots import class_ap
from cissod_bench.leaderboard.report import make_report, write_report
from cissod_bench.leaderboard.run_files import RunFiles
from cissod_bench.leaderboard.series import class_series, run_curves
from cissod_bench.results.curves import read_curves
from cissod_bench.results.external import write_run
from cissod_bench.results.record import load_result, write_result
from tests.leaderboard.runs import make_record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(tmp_path):
    """The page of three methods with two seeds each, with arrays, curves and configurations."""
    names = ["a", "b", "c"]
    boxes = [
        {"id": 3 * image + kind, "image_id": image, "category_id": kind, "bbox": [9 * kind, image, 40, 30]}
        for image in range(1, 9) for kind in (1, 2, 3)
    ]  # fmt: skip
    truth = {
        "images": [{"id": image} for image in range(1, 9)],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names, start=1)],
        "annotations": boxes,
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    for method, found in (("soft-teacher", 12), ("rfs", 16), ("gbs", 20)):
        for seed in (0, 1):
            folder = tmp_path / "runs" / f"{method}-{seed}"
            log = folder / "20260101_000000" / "vis_data" / "scalars.json"
            log.parent.mkdir(parents=True)
            shown = [
                {"image_id": box["image_id"], "category_id": box["category_id"], "bbox": box["bbox"], "score": 0.5}
                for box in boxes[: found + seed]
            ]
            (tmp_path / "dt.json").write_text(json.dumps(shown))
            evaluation = evaluate(tmp_path / "gt.json", tmp_path / "dt.json", {"maj": ["a", "b"], "min": ["c"]})
            key = make_record(method=method, train_seed=seed).key
            write_run(folder, key, evaluation, tmp_path / "dt.json", split="")
            record = load_result(folder / "result.json")
            (folder / "config.py").write_text("x = 1\n")
            write_result(
                folder / "result.json", msgspec.structs.replace(record, files=record.files | {"config": "config.py"})
            )
            lines = [{"step": step, "all/AP": 0.001 * step, "loss": 2.0} for step in (100, 200)]
            log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 300, "all/A')
    out = tmp_path / "out"
    write_report(make_report([tmp_path / "runs"]), out)
    return out / "index.html"


class Links(HTMLParser):
    """Everything that the page would fetch, and its charts."""

    def __init__(self):
        super().__init__()
        self.addresses, self.anchors, self.charts = [], [], 0

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.addresses += [found[name] for name in ("src", "href") if name in found and tag != "a"]
        self.anchors += [found["href"]] if tag == "a" else []
        self.charts += "data-chart" in found


def test_the_page_needs_no_network_and_links_configurations(page):
    links = Links()
    links.feed(page.read_text())
    assert links.addresses == ["data:,"]
    configs = [address for address in links.anchors if address.endswith("config.py")]
    assert len(configs) == 6
    assert all((page.parent / address).is_file() for address in configs)
    assert links.charts == 3


def test_the_page_has_the_same_bytes_twice(page):
    before = page.read_bytes()
    write_report(make_report([page.parents[1] / "runs"]), page.parent)
    assert page.read_bytes() == before


def test_names_cannot_break_out_of_the_page(run_folder, tmp_path):
    folder = run_folder("a", method="</script><script>alert(1)</script>")
    write_report(make_report([folder]), tmp_path / "out")
    assert "<script>alert(1)" not in (tmp_path / "out" / "index.html").read_text()


def test_curves_are_read_from_the_log(page):
    folder = page.parents[1] / "runs" / "gbs-0"
    assert read_curves(folder)["all/AP"] == ([100, 200], [0.1, 0.2])
    assert read_curves(folder)["loss"] == ([100, 200], [2.0, 2.0])
    assert read_curves(page.parent) == {}


SCRIPT = """
<script type="module">
const tick = () => new Promise(done => setTimeout(done, 60));
while (document.documentElement.dataset.ready !== "tables") await tick();
const table = document.querySelector(".sortable table");
const first = () => [...table.querySelectorAll("tbody tr")].map(row => row.cells[1].textContent);
const found = { start: first() };
const heading = [...table.querySelectorAll("thead tr:last-child th")].find(cell => cell.textContent === "min");
heading.click(); await tick();
found.ascending = first();
found.aria = heading.getAttribute("aria-sort");
heading.click(); await tick();
found.descending = first();
found.focusable = table.querySelectorAll('thead [tabindex="0"]').length;
const filter = document.querySelector(".sortable input");
filter.value = "rfs"; filter.dispatchEvent(new Event("input", { bubbles: true })); await tick(); await tick();
found.filtered = first();
const run = document.querySelector("details");
run.querySelector("summary").click(); await tick();
found.open = run.open && run.querySelector("dd").getBoundingClientRect().height > 0;
found.charts = document.querySelectorAll(".chart .main-svg").length > 0;
found.bars = document.querySelectorAll("#chart-0-0 .bars .point").length;
found.errors = document.querySelectorAll("#chart-0-0 .errorbar").length;
found.fetched = performance.getEntriesByType("resource").map(row => row.name).filter(name => /^https?:/.test(name));
const result = document.createElement("pre");
result.id = "result"; result.textContent = JSON.stringify(found); document.body.append(result);
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_real_browser(page, tmp_path):
    tried = page.parent / "tried.html"
    tried.write_text(page.read_text().replace("</body>", SCRIPT + "</body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000", "--dump-dom", tried.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    match = re.search(r'<pre id="result">(.*?)</pre>', shown)
    assert match, shown[-2000:]
    found = json.loads(html.unescape(match[1]))
    assert found["start"] == ["gbs", "rfs", "soft-teacher"]
    assert found["ascending"] == ["soft-teacher", "rfs", "gbs"]
    assert found["aria"] == "ascending"
    assert found["descending"] == ["gbs", "rfs", "soft-teacher"]
    assert found["filtered"] == ["rfs"]
    assert found["open"]
    assert found["focusable"] >= 6
    assert found["charts"]
    assert (found["bars"], found["errors"]) == (9, 9)
    assert found["fetched"] == []


def test_series_of_classes_and_iterations(page):
    run_set = make_report([page.parents[1] / "runs"]).run_sets[0]
    found = class_series(run_set, RunFiles())
    assert found.order == "AP of the first row"
    assert list(found.values) == ["gbs", "rfs", "soft-teacher"]
    evaluations = [load_evaluation(run.path.parent / "per_class.npz") for run in run_set.rows[1].runs]
    for position, name in enumerate(found.names):
        index = evaluations[0].class_names.index(name)
        mean = sum(evaluation.per_class()["AP"][index] for evaluation in evaluations) / 2
        assert found.values["rfs"][position] == pytest.approx(mean)
    lines = run_curves(run_set, RunFiles())
    assert [(line.label, line.group, line.first) for line in lines[:2]] == [("gbs", "all", True), ("gbs", "all", False)]
    assert len(lines) == 6


def test_classes_stand_by_their_frequency_in_the_split(page):
    runs = page.parents[1] / "runs"
    split = page.parents[1] / "split"
    split.mkdir()
    rows = [("b", 90), ("c", 50), ("a", 2)]
    classes = [{"name": name, "group": "maj", "train_boxes": 100, "labeled_boxes": boxes} for name, boxes in rows]
    (split / "statistics.json").write_text(json.dumps({"classes": classes, "groups": {"maj": {}, "min": {}}}))
    for path in runs.glob("*/result.json"):
        write_result(path, msgspec.structs.replace(load_result(path), split=str(split)))
    found = class_series(make_report([runs]).run_sets[0], RunFiles())
    assert (found.names, found.order) == (("b", "c", "a"), "boxes in D_l")
    axes = class_ap(found, "title").axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["b", "c", "a"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["gbs", "rfs", "soft-teacher"]


def test_a_row_without_arrays_is_left_out_of_the_classes(page):
    runs = page.parents[1] / "runs"
    (runs / "rfs-1" / "per_class.npz").unlink()
    assert list(class_series(make_report([runs]).run_sets[0], RunFiles()).values) == ["gbs", "soft-teacher"]
