"""What the pages take from the code is what the code says, and the published runs follow from the commands shown."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cissod_bench.leaderboard.paper import TABLES
from cissod_bench.leaderboard.report import make_report
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.published import published_folder
from cissod_bench.results.record import load_results, write_result
from cissod_bench.results.run_key import RunKey, facts_of, key_differences
from cissod_bench.tasks.registry import TASKS
from cissod_bench.training import spec
from tests.docs.pages import DOCS, script
from tests.leaderboard.runs import make_record

ROOT = DOCS.parent
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_tables_of_a_page_are_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert script("generate").updated(text) == text, "run `python docs/scripts/generate.py`"
    assert text.count("<!-- generated: ") == text.count("<!-- end -->")


def test_the_figure_shows_the_data_set_of_today() -> None:
    with Image.open(DOCS / "images" / "shapes.png") as stored:
        shown = np.asarray(stored.convert("RGB"), dtype=np.float64)
    drawn = np.asarray(script("figures").shapes(), dtype=np.float64)
    assert shown.shape == drawn.shape
    assert np.abs(shown - drawn).mean() < 6  # stored with 256 colours


def test_a_changed_table_is_made_anew() -> None:
    generate = script("generate")
    made = generate.updated("a\n<!-- generated: options rfs -->\n| `theta` | wrong |\n<!-- end -->\nb\n")
    assert made.startswith("a\n<!-- generated: options rfs -->\n\n| option |")
    assert made.endswith("\n<!-- end -->\nb\n")
    assert "wrong" not in made
    assert "| `threshold` | number ≥ 0 | – | Oversampling threshold t; the task's by default. |" in made


def test_every_logged_name_has_words() -> None:
    """Against the logs of published runs: no name is missing, and none is there that nothing logs."""
    words = script("words")
    logged = {
        name
        for log in published_folder().rglob("scalars.jsonl")
        for line in log.read_text(encoding="utf-8").splitlines()
        for name in json.loads(line)
    }
    patterns = {
        name: re.compile(
            name.replace("GROUP", "(all|maj|min|f|c|r|official-[fcr])")
            .replace("METRIC", r"(AP\w*|AR)")
            .replace("NAME", f"({'|'.join(words.LOGGED)})")
        )
        for names in words.SCALARS
        for name in names.split(", ")
    }
    unknown = {
        name
        for name in logged
        if name not in words.LOGGED and not any(pattern.fullmatch(name) for pattern in patterns.values())
    }
    assert unknown == set()
    assert {name for name, pattern in patterns.items() if not any(map(pattern.fullmatch, logged))} == set()


def test_names_are_read_from_every_kind_of_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_method.py").write_text(
        "class Loss:\n"
        "    def diagnostics(self):\n        return {'one': self.one}\n"
        "class Hook:\n"
        "    def start(self, runner):\n        self.kept = {'two': 2}\n"
        "        runner.message_hub.update_scalar('train/three', 3)\n"
        "    def diagnostics(self):\n        return self.kept\n"
        "class Refinement:\n"
        "    def loss(self):\n        return {'loss_four': 4, 'other': 5}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert sorted(script("logged").logged_names("some_method")) == ["loss_four", "one", "three", "two"]


def test_the_command_shown_for_a_published_run_gives_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of the spec behind the command is the key of the record; the split is taken to be the recorded one."""
    generate = script("generate")
    checked = 0
    for run_set in generate._published().run_sets:
        for run in (run for row in run_set.rows for run in row.runs if run_set.task in TASKS):
            recorded: RunKey = run.result.key
            split = SimpleNamespace(digest=recorded.split_digest, seed=recorded.split_seed, outputs={})
            monkeypatch.setattr(spec, "read_manifest", lambda _, split=split: split)
            assert key_differences(facts_of(recorded), facts_of(spec.run_key(generate.spec_of(run)))) == []
            checked += 1
    assert checked >= 4


def test_the_start_page_has_every_published_method() -> None:
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    found, rejected = load_results([published_folder()])
    assert not rejected
    for _, result in found:
        assert re.search(rf"^\| \d* ?\| {result.key.method}\W", text, flags=re.MULTILINE), result.key.method
    assert {result.key.task for _, result in found} >= {"shapes"} <= set(TASKS)


ABLATIONS = [
    ("soft-teacher", {}, (0, 1, 2), 0.10),
    ("gbs", {}, (0, 1, 2), 0.30),
    ("gbs", {"threshold": "fixed"}, (0, 1), 0.20),  # CrS + GbR, and 0.9, which is the detector's theta
    ("gbs", {"threshold": "fixed", "theta": 0.5}, (0, 1), 0.25),
]


def test_ablations_are_compared_over_the_seeds_that_all_have(tmp_path: Path) -> None:
    evidence, tables = script("evidence"), {part.number: part for part in TABLES}
    for method, options, seeds, ap in ABLATIONS:
        for seed in seeds:
            least = ap + seed * seed / 100
            values = {"all": (8 * 0.5 + 4 * least) / 12, "maj": 0.5, "min": least}
            record = make_record(
                values, method=method, method_options=options, train_seed=seed, schedule="paper",
                detector="r18-small-pretrained", method_version=METHODS[method].version,
            )  # fmt: skip
            write_result(tmp_path / f"{method}-{'-'.join(options)}-{options.get('theta')}-{seed}/result.json", record)
    report = make_report([tmp_path])
    seeds, rows = evidence.ablations(report, "shapes", tables[5], "0.9")
    assert seeds == [0, 1]
    measured = {row[0]: row[2:] for row in rows if row[2] != "not run yet"}
    assert measured == {
        "0.5": ["41.8 ± 0.2 / 50.0 ± 0.0 / 25.5 ± 0.7", "+5.0 ± 0.0", "25.0 / 26.0 / –"],
        "0.9": ["40.2 ± 0.2 / 50.0 ± 0.0 / 20.5 ± 0.7", "–", "20.0 / 21.0 / –"],
        "GbT": ["43.5 ± 0.2 / 50.0 ± 0.0 / 30.5 ± 0.7", "+10.0 ± 0.0", "30.0 / 31.0 / 34.0"],
    }
    seeds, rows = evidence.ablations(report, "shapes", tables[4], "none")
    assert [row[0] for row in rows if row[2] != "not run yet"] == ["none", "CrS + GbR", "CrS + GbT + GbR"]
    assert [row.method for row in evidence.methods_alone(report).run_sets[0].rows] == ["gbs", "soft-teacher"]


def test_a_row_of_both_ablation_tables_has_its_pseudo_labels_once() -> None:
    """Against the published logs, counted by a loop over their last third."""
    evidence = script("evidence")
    report = make_report([], published=published_folder())
    rows = evidence.ablation_pseudo_labels(report, "shapes", [part for part in TABLES if part.number in (4, 5)])
    labels = [row[0] for row in rows]
    assert "CrS + GbR" in labels
    assert not {"0.9 (CrS + GbR)", "GbT (CrS + GbR)"} & set(labels)
    assert [float(row[1].split()[0]) for row in rows] == sorted(
        (float(row[1].split()[0]) for row in rows), reverse=True
    )
    shares = []
    for seed in evidence.ablations(report, "shapes", next(part for part in TABLES if part.number == 4), "none")[0]:
        logged = (published_folder() / f"shapes-ablation-gbt-seed-{seed}/observables.jsonl").read_text().splitlines()
        late = [entry["pseudo_labels"] for entry in map(json.loads, logged) if entry["step"] > 4000]
        right, given, annotated = (
            np.array([sum(sum(each[name][low : low + 6]) for each in late) for low in (0, 6)])
            for name in ("right", "given", "annotated")
        )
        shares.append((right / given, right / annotated))
    expected = [f"{precision:.2f} / {recall:.3f}" for precision, recall in np.mean(shares, axis=0).T]
    assert next(row for row in rows if row[0] == "GbT")[2:] == expected
