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
from cissod_bench.leaderboard.figures.per_class import class_ap
from cissod_bench.leaderboard.report import make_report, write_report
from cissod_bench.leaderboard.run_files import RunFiles
from cissod_bench.leaderboard.series import class_series, run_curves
from cissod_bench.leaderboard.writers import comma_separated, latex, number
from cissod_bench.results.curves import read_curves
from cissod_bench.results.external import write_run
from cissod_bench.results.record import load_result, write_result
from tests.leaderboard.runs import make_record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with the page of three methods with two seeds each, with arrays, curves and configurations."""
    tmp_path = tmp_path_factory.mktemp("page")
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
            shown = [
                {"image_id": box["image_id"], "category_id": box["category_id"], "bbox": box["bbox"], "score": 0.5}
                for box in boxes[: found + seed]
            ]
            (tmp_path / "dt.json").write_text(json.dumps(shown))
            evaluation = evaluate(tmp_path / "gt.json", tmp_path / "dt.json", {"maj": ["a", "b"], "min": ["c"]})
            key = make_record(method=method, train_seed=seed).key
            write_run(folder, key, evaluation, tmp_path / "dt.json", data={})
            record = load_result(folder / "result.json")
            (folder / "config.py").write_text("x = 1\n")
            write_result(
                folder / "result.json", msgspec.structs.replace(record, files=record.files | {"config": "config.py"})
            )
            lines = [{"step": step, "all/AP": 0.001 * step, "loss": 2.0} for step in (100, 200)]
            log.parent.mkdir(parents=True)
            log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 300, "all/A')
    write_report(make_report([tmp_path / "runs"]), tmp_path / "out")
    return tmp_path


@pytest.fixture
def page(made, tmp_path):
    """A copy of it for each test."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "out" / "index.html"


class Links(HTMLParser):
    """Everything that the page would fetch, and its figures."""

    def __init__(self):
        super().__init__()
        self.addresses, self.anchors, self.figures = [], [], 0

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.addresses += [found[name] for name in ("src", "href") if name in found and tag not in ("a", "use")]
        self.anchors += [found["href"]] if tag == "a" else []
        self.figures += tag == "svg"


def test_the_page_needs_no_network_and_links_configurations(page):
    links = Links()
    links.feed(page.read_text())
    assert links.addresses == ["data:,"]
    configs = [address for address in links.anchors if address.endswith("config.py")]
    assert len(configs) == 6
    assert all((page.parent / address).is_file() for address in configs)
    assert links.figures == 3
    identifiers = re.findall(r'<table id="([^"]*)"', page.read_text())
    assert len(identifiers) == len(set(identifiers)) > 1, "one for each metric"
    assert len(page.read_bytes()) < 1_000_000


def test_the_page_has_the_same_bytes_twice(made):
    before = (made / "out" / "index.html").read_bytes()
    write_report(make_report([made / "runs"]), made / "out")
    assert (made / "out" / "index.html").read_bytes() == before


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
const table = document.querySelector(".ranked table");
const first = () => [...table.querySelectorAll("tbody tr")].map(row => row.cells[1].textContent);
const found = { start: first() };
const heading = [...table.querySelectorAll("thead tr:last-child th")].find(cell => cell.textContent === "min");
heading.click(); await tick();
found.descending = first();
found.aria = heading.getAttribute("aria-sort");
heading.click(); await tick();
found.ascending = first();
const under = (above, below) => {
  const [one, two] = [above, below].map(cell => cell.getBoundingClientRect());
  return one.left <= two.left + 1 && two.right <= one.right + 1;
};
const above = [...table.querySelectorAll("thead tr:first-child th")].find(cell => cell.textContent === "AP");
found.under = ["all", "maj", "min"].map(name =>
  under(above, [...table.querySelectorAll("thead tr:last-child th")].find(cell => cell.textContent === name)));
const end = node => {
  const range = new Range();
  range.selectNodeContents(node);
  return range.getBoundingClientRect().right;
};
const cell = table.rows[table.rows.length - 1].cells[heading.cellIndex];
found.aligned = Math.abs(end(heading.querySelector(".dt-column-title")) - end(cell)) < 2;
found.focusable = table.querySelectorAll('thead [tabindex="0"]').length;
const filter = document.querySelector(".ranked input");
filter.value = "rfs"; filter.dispatchEvent(new Event("input", { bubbles: true })); await tick(); await tick();
found.filtered = first();
const run = document.querySelector("details");
run.querySelector("summary").click(); await tick();
found.open = run.open && run.querySelector("dd").getBoundingClientRect().height > 0;
const saved = [];
HTMLAnchorElement.prototype.click = function () { saved.push(this); };
const press = async label => {
  [...document.querySelectorAll("button")].find(each => each.offsetParent && each.textContent === label).click();
  for (let waited = 0; !saved.length && waited < 50; waited++) await tick();
  const link = saved.pop();
  const bytes = new Uint8Array(await (await fetch(link.href)).arrayBuffer());
  return [link.download, bytes.length > 2000 ? bytes.length : new TextDecoder().decode(bytes), [...bytes.slice(0, 4)]];
};
found.saved = { CSV: await press("CSV"), LaTeX: await press("LaTeX"), PNG: await press("PNG") };
const metric = document.querySelector("#metric");
metric.value = "AP50"; metric.dispatchEvent(new Event("change")); await tick(); await tick();
const shown = [...document.querySelectorAll(".ranked table")].filter(each => each.offsetParent);
found.switched = shown.map(each => each.querySelector("thead th[scope=colgroup]").textContent);
found.other = [...shown[0].querySelectorAll("tbody tr")].map(row => row.cells[3].textContent);
found.points = document.querySelectorAll("#section-0 svg title").length;
found.fetched = performance.getEntriesByType("resource").map(row => row.name).filter(name => /^https?:/.test(name));
const result = document.createElement("pre");
result.id = "result"; result.textContent = JSON.stringify(found); document.body.append(result);
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_real_browser(page, tmp_path):
    tried = page.parent / "tried.html"
    tried.write_text(page.read_text().replace("</body>", SCRIPT + "</body>"))
    found = in_browser(tried, tmp_path)
    assert found["start"] == ["gbs", "rfs", "soft-teacher"]
    assert found["ascending"] == ["soft-teacher", "rfs", "gbs"]
    assert found["aria"] == "descending"
    assert found["under"] == [True] * 3
    assert found["aligned"]
    assert found["descending"] == ["gbs", "rfs", "soft-teacher"]
    assert found["filtered"] == ["rfs"]
    assert found["open"]
    assert found["focusable"] >= 6
    assert found["points"] == 30  # 3 rows in 3 groups; 3 rows of 3 classes; 6 runs with 2 evaluations
    table = make_report([page.parents[1] / "runs"]).tables[0]
    for label, text in (("CSV", comma_separated(table)), ("LaTeX", latex(table))):
        assert found["saved"][label][:2] == [f"{table.name}-AP.{'csv' if label == 'CSV' else 'tex'}", text]
    assert found["saved"]["PNG"][0] == f"{table.name}-groups.png"
    assert found["saved"]["PNG"][2] == list(b"\x89PNG")
    assert found["switched"] == ["AP50"]
    other = make_report([page.parents[1] / "runs"], metric="AP50").tables[0]
    assert found["other"] == [number(other.columns[3], cells[3]) for cells in other.rows]
    assert found["fetched"] == []


NARROW = """
<iframe style="width: 390px; height: 900px; border: 0" src="index.html"></iframe>
<script>
const tick = () => new Promise(done => setTimeout(done, 60));
onload = async () => {
  const page = document.querySelector("iframe").contentDocument;
  while (page.documentElement.dataset.ready !== "tables") await tick();
  const cells = [...page.querySelector(".ranked tbody tr").cells].filter(cell => cell.offsetParent);
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify(cells.map(cell => [cell.textContent, cell.getBoundingClientRect().right]));
  document.body.append(result);
};
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_minority_is_seen_on_a_telephone(page, tmp_path):
    (page.parent / "narrow.html").write_text(NARROW)
    cells = in_browser(page.parent / "narrow.html", tmp_path, "--allow-file-access-from-files")
    table = make_report([page.parents[1] / "runs"]).tables[0]
    shown = [number(column, cell) for column, cell in zip(table.columns, table.rows[0], strict=True)]
    assert [text for text, _ in cells[:4]] == [shown[index] for index in (1, 3, 4, 5)]  # without place and seeds
    assert cells[3][1] <= 390


def in_browser(file, tmp_path, *options):
    """What a page has written into its element `result`, without a network."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000", *options]
    shown = subprocess.run(
        [*command, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    match = re.search(r'<pre id="result">(.*?)</pre>', shown, re.DOTALL)
    assert match, shown[-2000:]
    return json.loads(html.unescape(match[1]))


def test_series_of_classes_and_iterations(page):
    run_set = make_report([page.parents[1] / "runs"]).run_sets[0]
    found = class_series(run_set, RunFiles())
    assert found.order == "group and AP of the first row"
    assert found.groups == ("maj", "maj", "min")
    assert list(found.values) == ["gbs", "rfs", "soft-teacher"]
    evaluations = [load_evaluation(run.path.parent / "per_class.npz") for run in run_set.rows[1].runs]
    for position, name in enumerate(found.names):
        index = evaluations[0].class_names.index(name)
        mean = sum(evaluation.per_class()["AP"][index] for evaluation in evaluations) / 2
        assert found.values["rfs"][position] == pytest.approx(mean)
    lines = run_curves(run_set, RunFiles())
    assert [(line.label, line.group, line.row) for line in lines[:2]] == [("gbs", "all", 0), ("gbs", "all", 0)]
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
    assert (found.names, found.order) == (("b", "a", "c"), "group and boxes in $D_l$")
    assert found.groups == ("maj", "maj", "min")
    figure = class_ap(found)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["b", "a", "c"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gbs", "rfs", "soft-teacher"]


def test_a_row_without_arrays_is_left_out_of_the_classes(page):
    runs = page.parents[1] / "runs"
    (runs / "rfs-1" / "per_class.npz").unlink()
    record = load_result(runs / "rfs-1" / "result.json")
    files = {name: file for name, file in record.files.items() if name != "per_class"}
    write_result(runs / "rfs-1" / "result.json", msgspec.structs.replace(record, files=files))
    assert list(class_series(make_report([runs]).run_sets[0], RunFiles()).values) == ["gbs", "soft-teacher"]
