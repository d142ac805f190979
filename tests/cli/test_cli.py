"""The program as a user meets it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cissod_bench.cli import main as program
from cissod_bench.cli.main import app
from cissod_bench.methods.gbs.ablations import ABLATIONS
from cissod_bench.methods.registry import METHODS
from cissod_bench.tasks.registry import TASKS
from cissod_bench.training.recipes.detectors import DETECTORS
from cissod_bench.training.recipes.schedules import SCHEDULES

runner = CliRunner()
WITHOUT_TORCH = """
import sys
from cissod_bench.cli.main import main
sys.argv = ["cissod-bench", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
loaded = [name for name in ("torch", "mmdet", "mmengine", "pandas", "matplotlib", "numpy") if name in sys.modules]
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], *(["list", what] for what in ("methods", "tasks", "schedules"))]
)
def test_help_and_list_import_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(arguments=arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("what", "registry"),
    [
        ("methods", METHODS),
        ("tasks", TASKS),
        ("schedules", SCHEDULES),
        ("detectors", DETECTORS),
        ("ablations", ABLATIONS),
    ],
)
def test_list_as_json(what: str, registry: Mapping[str, Any]) -> None:
    done = runner.invoke(app, ["list", what, "--json"])
    rows = json.loads(done.stdout)
    assert {row["name"]: row["title"] for row in rows} == {name: entry.title for name, entry in registry.items()}
    assert all(row["title"] for row in rows)


def commands(group: Any, *path: str) -> Iterator[list[str]]:
    """The words of every command, in groups to their depth."""
    for name, command in getattr(group, "commands", {}).items():
        yield [*path, name]
        yield from commands(command, *path, name)


EVERY_COMMAND = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_every_command_has_help(command: list[str]) -> None:
    listed = runner.invoke(app, [*command[:-1], "--help"]).stdout
    shown = runner.invoke(app, [*command, "--help"])
    assert shown.exit_code == 0
    assert command[-1] in listed
    (_, about), *_ = re.findall(r"Usage: (.+)\n\n  (\S.+)", shown.stdout)
    assert len(about) > 10, "a sentence that says what it does"


def test_no_command_is_lost() -> None:
    names = {words[0] for words in EVERY_COMMAND}
    assert names == {
        "make-splits", "splits", "run", "sweep", "predict", "export", "eval", "report", "compare", "errors", "list",
        "create", "data", "doctor", "submit", "check-results",
    }  # fmt: skip


def test_the_help_of_run_has_named_panels() -> None:
    shown = runner.invoke(app, ["run", "--help"]).stdout
    panels = re.split(r"^(\w[\w ]+):$", shown, flags=re.MULTILINE)[1:]
    options = {title: set(re.findall(r"^ +.*?(--[\w-]+)", text, re.MULTILINE)) for title, text in batched(panels)}
    assert list(options) == ["What is trained", "Data", "Length and detector", "Machine", "Output", "Other"]
    assert {"--method", "--ablation", "--seed"} <= options["What is trained"]
    assert {"--gpus", "--slurm", "--device"} <= options["Machine"]
    assert options["Other"] == {"--help"}


@pytest.mark.parametrize(
    ("command", "panels"),
    [
        ([], ["Options", "Data and splits", "Training", "Results", "Help"]),
        (
            ["eval"],
            ["What is scored", "Data", "What is shown", "With --out, a record of the training", "Output", "Other"],
        ),
        (["make-splits"], ["What is split", "Output", "Data", "Other"]),
    ],
    ids=["cissod-bench", "eval", "make-splits"],
)
def test_long_help_has_panels(command: list[str], panels: list[str]) -> None:
    shown = runner.invoke(app, [*command, "--help"]).stdout
    assert re.findall(r"^(\w[\w ,-]+):$", shown, flags=re.MULTILINE) == panels


def batched(texts: list[str]) -> Iterator[tuple[str, str]]:
    return zip(texts[::2], texts[1::2], strict=True)


def test_list_shows_the_options_of_a_method() -> None:
    (option,) = json.loads(runner.invoke(app, ["list", "methods", "soft-teacher", "--json"]).stdout)["options"]
    assert (option["name"], option["type"], option["default"]) == ("theta", "UnitInterval | None", "None")
    text = runner.invoke(app, ["list", "methods", "gbs"]).stdout
    assert "-o beta=0.5    UnitInterval" in text
    assert "release 0.8 on Objects365 and LVIS" in " ".join(text.split())
    assert "Unknown method 'gbz'. Did you mean 'gbs'?" in str(runner.invoke(app, ["list", "methods", "gbz"]).exception)


def test_doctor_says_what_is_missing(tmp_path: Path) -> None:
    done = runner.invoke(app, ["doctor", "--data-root", str(tmp_path), "--json"])
    report = json.loads(done.stdout)
    assert report["software"]["torch"]
    assert "torchvision" in report["device"]["operators"] or "mmcv" in report["device"]["operators"]
    missing = [entry["what"] for entry in report["tasks"]["coco-split1"] if not entry["found"]]
    assert missing == [
        "training annotations", "training images", "validation annotations", "validation images", "split (seed 0)"
    ]  # fmt: skip
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    file = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    file.touch()
    text = runner.invoke(app, ["doctor", "--data-root", str(tmp_path)]).stdout
    assert f"found    validation annotations   {file}" in text
    assert f"missing  training annotations     {file.with_name('instances_train2017.json')}" in text
    assert "make-splits --task shapes" in text


def test_an_error_is_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cissod-bench", "run", "--task", "coco-split3", "--method", "gbs"])
    with pytest.raises(SystemExit) as end:
        program.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("Error: Unknown task 'coco-split3'. Did you mean 'coco-split")


def test_an_option_without_a_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from cissod_bench.errors import UserError
    from cissod_bench.training.spec import parse_options

    assert parse_options(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(UserError, match="write NAME=VALUE"):
        parse_options(["theta"])
