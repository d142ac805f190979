"""Label budgets: nested splits of several fractions from one reading."""

import itertools
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cissod_bench import api
from cissod_bench.cli.main import app
from cissod_bench.coco.reader import read_coco
from cissod_bench.errors import UserError
from cissod_bench.splits import make
from cissod_bench.splits.make import make_splits
from cissod_bench.splits.plan import Variant
from cissod_bench.splits.verify import verify_split
from cissod_bench.tasks.registry import get_task
from cissod_bench.training.runner import run_job
from tests.tiny import tiny_job
from tests.toy import TOY_TASK, toy_data

FRACTIONS = (0.05, 0.1, 0.3, 1.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "toy.json").write_text(json.dumps(toy_data()))
    (tmp_path / "task.toml").write_text(TOY_TASK)
    return tmp_path


def test_they_are_nested_and_read_once(data: Path) -> None:
    task, readings = get_task(str(data / "task.toml")), 0

    def read(path: Path) -> object:
        nonlocal readings
        readings += 1
        return read_coco(path)

    folders = [(data / f"{each}", Variant(3, fraction=each)) for each in FRACTIONS]
    made = make_splits(task, data / "toy.json", folders, read=read)  # type: ignore[arg-type]
    assert readings == 1
    splits = [api.load_split(each.folder) for each in made]
    for smaller, larger in itertools.pairwise(splits):
        assert set(smaller.labeled_ids) < set(larger.labeled_ids)
        assert set(smaller.unlabeled_ids) > set(larger.unlabeled_ids)
    assert [split.label_fraction for split in splits] == list(FRACTIONS)
    assert [check for each in made for check in verify_split(each.folder) if check.problem] == []
    # Each is the split of a task with that fraction.
    for fraction, split in zip(FRACTIONS, splits, strict=True):
        (data / "own.toml").write_text(TOY_TASK + f"[labeled]\nfraction = {fraction}\n")
        own_task, out = get_task(str(data / "own.toml")), data / "own" / f"{fraction}"
        (own,) = make_splits(own_task, data / "toy.json", [(out, Variant(3))])
        assert (own.folder / "labeled.json").read_bytes() == split.labeled_file.read_bytes()


def test_the_tasks_own_fraction_gives_its_own_split(data: Path) -> None:
    task = get_task(str(data / "task.toml"))
    plain, same, other = make_splits(
        task,
        data / "toy.json",
        [(data / "a", Variant()), (data / "b", Variant(fraction=0.1)), (data / "c", Variant(fraction=0.2))],
    )
    assert plain.manifest == same.manifest
    assert "label_budget" not in plain.manifest.options
    assert other.manifest.options["label_budget"] is True


def test_the_command_names_the_folders(data: Path) -> None:
    given = ["make-splits", "--task", str(data / "task.toml"), "--annotations", str(data / "toy.json"), "--no-plot"]
    done = CliRunner().invoke(app, [*given, "--out", str(data / "x"), "--fraction", "0.05,0.1", "--seed", "0,1"])
    assert done.exit_code == 0, done.output
    found = sorted(path.parent.relative_to(data / "x").as_posix() for path in (data / "x").rglob("split.json"))
    assert found == ["fraction-0.05/seed-0", "fraction-0.05/seed-1", "fraction-0.1/seed-0", "fraction-0.1/seed-1"]
    one = CliRunner().invoke(app, [*given, "--out", str(data / "y"), "--fraction", "0.2"])
    assert one.exit_code == 0, one.output
    assert api.load_split(data / "y").label_fraction == 0.2
    for wrong, message in (("0.1,x", "write a number"), ("0", "above 0"), ("1.5", "at most 1"), ("0.1,0.1", "differ")):
        refused = CliRunner().invoke(app, [*given, "--out", str(data / "z"), "--fraction", wrong])
        assert isinstance(refused.exception, UserError)
        assert message in str(refused.exception)


def test_embedded_data_has_budgets_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from functools import partial

    from cissod_bench.synthetic import shapes

    monkeypatch.setattr(shapes, "generate", partial(shapes.generate, train_images=40, val_images=4))
    small, large = api.make_splits("shapes", tmp_path / "x", fractions=[0.1, 0.5], plot=False)
    assert set(api.load_split(small.folder).labeled_ids) < set(api.load_split(large.folder).labeled_ids)
    with pytest.raises(UserError, match="already holds another split"):
        make.make_embedded_split(get_task("shapes"), small.folder, Variant(0, fraction=0.5))
    again = make.make_embedded_split(get_task("shapes"), small.folder, Variant(0, fraction=0.1))
    assert again.unchanged


def test_a_run_takes_such_a_split_and_its_record_has_the_fraction(tiny: Path, tmp_path: Path) -> None:
    task = get_task(str(tiny / "task.toml"))
    (made,) = make_splits(task, tiny / "train.json", [(tmp_path / "split", Variant(0, fraction=0.6))])
    result = run_job(tiny_job(tiny, tmp_path / "run", split=made.folder, iterations=1))
    assert result.label_fraction == 0.6
    assert run_job(tiny_job(tiny, tmp_path / "own", iterations=1)).label_fraction == 0.3
