"""A machine without libGL, where the OpenCV with windows cannot be loaded."""

import json

import pytest
from typer.testing import CliRunner

from cissod_bench.cli import main
from cissod_bench.errors import remedy_of_import
from cissod_bench.ssod import mmcv_shim

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
