"""A user's own method, from the page that explains it to the table."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.results.record import load_result
from cissod_bench.training.runner import run_job
from tests.tiny import tiny_job

PAGE = Path(__file__).parents[2] / "docs" / "your-own-method.md"
WITH_MMDET_ALONE = """
import sys
from mmengine.config import Config
from mmengine.registry import init_default_scope
config = Config.fromfile(sys.argv[1])
from mmdet.registry import MODELS
init_default_scope("mmdet")
model = MODELS.build(config.model)
from mmengine.runner import load_checkpoint
load_checkpoint(model, sys.argv[2], strict=True)
print(type(model.student.roi_head.bbox_head.loss_cls).__module__, model.student.roi_head.bbox_head.loss_cls.shift.min())
"""


def code_of_the_page() -> str:
    (found,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def page_run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's method, run by the command line on the tiny task; the folder with the file and the run."""
    folder = tmp_path_factory.mktemp("own")
    file = folder / "logit_adjustment.py"
    file.write_text(code_of_the_page())
    done = CliRunner().invoke(app, ["run", *arguments(tiny, folder, file)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "logit-adjustment on tiny" in done.output
    return folder


def arguments(tiny: Path, folder: Path, file: Path, *more: str) -> list[str]:
    given = {
        "--task": tiny / "task.toml", "--split": tiny / "split", "--data-root": tiny, "--method": file,
        "--iterations": 2, "--device": "cpu", "--threads": 1, "--out": folder / "run",
    }  # fmt: skip
    return [str(word) for pair in given.items() for word in pair] + list(more)


def test_the_page_has_a_method_in_about_forty_lines() -> None:
    lines = [line for line in code_of_the_page().splitlines() if line.strip()]
    assert 30 <= len(lines) <= 42


def test_the_method_of_the_page_trains_and_stands_in_the_table(page_run: Path) -> None:
    result = load_result(page_run / "run" / "result.json")
    assert result.key.method == "logit-adjustment"
    assert len(result.key.method_digest or "") == 64
    assert result.files["method"] == "method.py"
    assert (page_run / "run" / "method.py").read_text() == code_of_the_page()
    done = CliRunner().invoke(app, ["report", str(page_run), "--json"], catch_exceptions=False)
    rows = json.loads(done.stdout)
    assert f"logit-adjustment@{result.key.method_digest[:8]}" in json.dumps(rows)


def test_mmdet_alone_builds_and_loads_the_finished_run(page_run: Path) -> None:
    (page_run / "logit_adjustment.py").rename(page_run / "moved_away.py")
    try:
        checkpoint = page_run / "run" / "checkpoints" / "iter_2.pth"
        command = [sys.executable, "-c", WITH_MMDET_ALONE, str(page_run / "run" / "config.py"), str(checkpoint)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    finally:
        (page_run / "moved_away.py").rename(page_run / "logit_adjustment.py")
    assert done.returncode == 0, done.stderr
    assert "cissod_bench_method_" in done.stdout.splitlines()[-1]


def test_a_finished_run_predicts_where_it_was_moved_to(page_run: Path, tiny: Path, tmp_path: Path) -> None:
    (page_run / "run").rename(tmp_path / "moved")
    try:
        command = ["predict", str(tmp_path / "moved"), str(tiny / "val"), "--out", str(tmp_path / "found"), "--trust"]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
    finally:
        (tmp_path / "moved").rename(page_run / "run")
    assert done.exit_code == 0
    assert json.loads((tmp_path / "found" / "detections.json").read_text())


def test_an_edited_file_does_not_go_on_with_the_run(page_run: Path, tiny: Path) -> None:
    file = page_run / "edited.py"
    file.write_text(code_of_the_page().replace("LogitAdjustedLoss", "EditedLoss"))
    with pytest.raises(UserError, match=r"holds another run: method_digest is .*, not .*EditedLoss"):
        CliRunner().invoke(app, ["run", *arguments(tiny, page_run, file)], catch_exceptions=False)


def test_two_files_with_one_name_are_two_rows(page_run: Path, tmp_path: Path) -> None:
    content = json.loads((page_run / "run" / "result.json").read_text())
    names = []
    for digest in ("a" * 64, "b" * 64):
        (tmp_path / digest[0]).mkdir()
        shutil.copy(page_run / "run" / "per_class.npz", tmp_path / digest[0])
        (tmp_path / digest[0] / "result.json").write_text(
            json.dumps(content | {"key": content["key"] | {"method_digest": digest}})
        )
        names.append(f"logit-adjustment@{digest[:8]}")
    rows = json.loads(CliRunner().invoke(app, ["report", str(tmp_path), "--json"], catch_exceptions=False).stdout)
    assert [name for name in names if name in json.dumps(rows)] == names


def test_an_unfinished_run_goes_on_with_the_same_file(page_run: Path, tiny: Path) -> None:
    record = page_run / "run" / "result.json"
    before = load_result(record)
    record.unlink()
    (page_run / "run" / "per_class.npz").unlink()
    done = CliRunner().invoke(
        app, ["run", *arguments(tiny, page_run, page_run / "logit_adjustment.py")], catch_exceptions=False
    )
    assert done.exit_code == 0
    after = load_result(record)
    assert (after.key, after.metrics) == (before.key, before.metrics)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("component(LogitAdjustedLoss, ", "component(NoSuchLoss, ", r"broken.py, line \d+: NameError: .*NoSuchLoss"),
        (
            "component(LogitAdjustedLoss, ",
            'dict(type="NoSuchLoss", ',
            r"broken.py: KeyError: .*NoSuchLoss is not in the",
        ),
        ("shift=[*shift, 0.0]", "shft=[*shift, 0.0]", r"broken.py: TypeError: .*unexpected keyword.*'shft'"),
        ("torch.tensor(shift)", "torch.tensor(shift) / None", r"broken.py, line \d+: TypeError"),
    ],
)
def test_parts_that_do_not_fit_are_named_before_anything_is_written(
    before: str, after: str, message: str, tiny: Path, tmp_path: Path
) -> None:
    file = tmp_path / "broken.py"
    assert before in code_of_the_page()
    file.write_text(code_of_the_page().replace(before, after))
    for action in (["--plan"], []):
        with pytest.raises(UserError, match=message):
            CliRunner().invoke(app, ["run", *arguments(tiny, tmp_path, file, *action)], catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.py"]


def test_create_writes_a_method_that_trains_and_never_replaces_a_file(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "fresh.py"
    done = CliRunner().invoke(app, ["create", "method", "my-fresh-idea", "--out", str(file)], catch_exceptions=False)
    assert "--method" in done.stdout
    result = run_job(tiny_job(tiny, tmp_path / "run", method=str(file), options={"power": "1.0"}, iterations=2))
    assert (result.key.method, result.key.method_options) == ("my-fresh-idea", {"power": 1.0})
    for given, message in (
        (["my-fresh-idea", "--out", str(file)], r"fresh.py exists already"),
        (["gbs", "--out", str(tmp_path / "new.py")], r"a built-in method has this name"),
        (["My Idea", "--out", str(tmp_path / "new.py")], r"use lower-case letters"),
        (["mine", "--out", str(tmp_path / "new.txt")], r"ends with .py"),
    ):
        with pytest.raises(UserError, match=message):
            CliRunner().invoke(app, ["create", "method", *given], catch_exceptions=False)
    assert not (tmp_path / "new.py").exists()
