"""Without --out a split lands where `run` looks for it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cissod_bench import api
from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.tasks.registry import TASKS
from cissod_bench.training.spec import RunSpec, split_folder


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where splits would have been written."""
    written: list[Path] = []
    monkeypatch.setattr("cissod_bench.splits.make.make_embedded_split", lambda task, out, *_, **__: written.append(out))
    return written


def test_it_is_the_one_that_run_takes(folders: list[Path], tmp_path: Path) -> None:
    api.make_splits("shapes", data_root=tmp_path)
    spec = RunSpec(task="shapes", method="gbs", data_root=tmp_path)
    assert folders == [split_folder(spec, TASKS["shapes"])]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"seeds": 3}, ["seed-3"]),
        ({"seeds": [0, 2]}, ["seed-0", "seed-2"]),
        ({"folds": 2}, ["fold-0", "fold-1"]),
        ({"fractions": [0.05, 0.1]}, ["fraction-0.05", "fraction-0.1"]),
        ({"fractions": [0.05, 0.1], "seeds": [0, 1]}, [f"fraction-{f}/seed-{s}" for f in (0.05, 0.1) for s in (0, 1)]),
    ],
)
def test_others_stand_beside_it(
    folders: list[Path], tmp_path: Path, options: dict[str, object], names: list[str]
) -> None:
    api.make_splits("shapes", data_root=tmp_path, **options)  # type: ignore[arg-type]
    assert folders == [tmp_path / "splits" / "shapes" / name for name in names]


def test_another_fraction_does_not_take_its_place(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--fraction: give --out as well; .*shapes/seed-0 is for the split"):
        api.make_splits("shapes", data_root=tmp_path, fractions=0.05)
    assert folders == []
    api.make_splits("shapes", tmp_path / "few", data_root=tmp_path, fractions=0.05)
    assert folders == [tmp_path / "few"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": 0.05, "seeds": [0, 1]}, "--fraction: give --out"),
        ({"fractions": [0.05], "folds": 2}, "--fraction: give --out"),
        ({"folds": 2, "seeds": 3}, "--folds with --seed: give --out"),
        ({"folds": 2, "seeds": [0, 1]}, "--folds with --seed: give --out"),
    ],
)
def test_a_name_says_which_split_it_is(
    folders: list[Path], tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        api.make_splits("shapes", data_root=tmp_path, **options)  # type: ignore[arg-type]
    assert folders == []


def test_two_fractions_have_two_names(folders: list[Path], tmp_path: Path) -> None:
    api.make_splits("shapes", tmp_path, fractions=[0.1234561, 0.1234562])
    assert [folder.name for folder in folders] == ["fraction-0.1234561", "fraction-0.1234562"]


def test_the_doctors_command_makes_it(tmp_path: Path) -> None:
    root = tmp_path / "with space"
    shown = CliRunner().invoke(app, ["doctor", "--data-root", str(root)], terminal_width=400).output
    assert f"cissod-bench make-splits --task shapes --data-root '{root}'\n" in shown
