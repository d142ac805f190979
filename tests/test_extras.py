"""Libraries that are missing, cannot be loaded, or are installed twice."""

import importlib
import json
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cissod_bench.cli import main
from cissod_bench.cli.doctor import clash
from cissod_bench.errors import UserError
from cissod_bench.extras import EXTRAS, remedy_of_import
from cissod_bench.ssod import mmcv_shim
from cissod_bench.ssod.source_file import import_file

doctor = importlib.import_module("cissod_bench.cli.doctor")
ERROR = ImportError("libGL.so.1: cannot open shared object file: No such file or directory")


def test_the_doctor_says_what_to_do_and_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise ERROR

    monkeypatch.setattr(mmcv_shim, "backend", broken)
    found = CliRunner().invoke(main.app, ["doctor", "--json"])
    assert found.exit_code == 0
    said = json.loads(found.output)["device"]["operators"]
    assert "libGL.so.1" in said
    assert "pip install --force-reinstall --no-deps opencv-python-headless" in said


def test_any_command_says_it_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ERROR

    monkeypatch.setattr(main, "app", broken)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    assert "opencv-python-headless" in capsys.readouterr().err
    assert remedy_of_import(ImportError("No module named 'nothing'")) is None


@pytest.mark.parametrize(("module", "extra"), [("torch", "train"), ("mmdet", "train"), ("submitit", "slurm")])
def test_a_missing_extra_is_named_with_its_command(
    module: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacks() -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(main, "app", lacks)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    command = f"pip install 'cissod-bench[{extra}]'"
    assert capsys.readouterr().err == (
        f"Error: This needs {module}, which comes with the extra `{extra}`. Run `{command}`.\n"
    )


def test_a_method_file_that_lacks_an_extra_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    (tmp_path / "own.py").write_text("import submitit\n")
    with pytest.raises(UserError, match=r"own\.py: This needs submitit, .*'cissod-bench\[slurm\]'"):
        import_file(tmp_path / "own.py")


def test_modules_of_extras_are_those_of_the_declared_distributions() -> None:
    declared = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        names = {re.split("[<>=]", line)[0] for line in declared[extra]}
        for module in set(modules) - {"cv2"}:  # mmcv, mmdet and lvis ask for OpenCV themselves
            assert names & set(distributions[module]), module


def test_the_doctor_finds_the_original_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> str:
        if name in ("mmdet", "mmcv-lite"):
            return "3.3.0"
        raise PackageNotFoundError(name)

    assert clash() is None
    monkeypatch.setattr("importlib.metadata.version", installed)
    found = json.loads(CliRunner().invoke(main.app, ["doctor", "--json"]).output)["clash"]
    assert "Run `pip uninstall --yes mmdet mmcv-lite`" in found
    assert "then `pip install --force-reinstall --no-deps onedl-mmdetection onedl-mmengine onedl-mmcv`" in found
    assert "mmdet, mmcv-lite: installed" in CliRunner().invoke(main.app, ["doctor"]).output
