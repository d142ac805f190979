"""What the API takes and refuses: paths as texts or as paths, and numbers that the commands would refuse as well."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cissod_bench as cb
from cissod_bench.errors import UserError
from cissod_bench.leaderboard.errors import errors_of
from cissod_bench.results.record import load_result
from cissod_bench.training.trained.predict import Predictor
from tests.results.published import make_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `data`, `split` of two training images, and `run`, whose detections are the ground truth."""
    from cissod_bench.evaluation.inputs import read_ground_truth
    from cissod_bench.synthetic import shapes

    folder = tmp_path_factory.mktemp("api")
    shapes.generate("shapes", folder / "data", 0, train_images=1)
    make_run(folder / "run", read_ground_truth(folder / "data" / "val.json"))
    cb.make_splits("shapes", folder / "split", plot=False)
    return folder


def test_a_path_is_a_text_or_a_path(tiny: Path, tmp_path: Path) -> None:
    file = tiny / "task.toml"
    assert cb.tasks.describe(file) == cb.tasks.describe(str(file))
    spec = cb.RunSpec(task=file, method=Path("mine.py"), detector=Path("d.py"))  # type: ignore[arg-type]
    assert (spec.task, spec.method, spec.detector) == (str(file), "mine.py", "d.py")
    (made,) = cb.make_splits(file, tmp_path / "split", plot=False)
    assert made.manifest.digest == cb.load_split(tiny / "split").digest
    (tmp_path / "w.pth").write_bytes(b"weights")
    stated = [
        cb.state_training("mine", "r50-fpn", 1, backbone=given)
        for given in (tmp_path / "w.pth", str(tmp_path / "w.pth"))
    ]
    assert stated[0] == stated[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": -1}, "--seed -1: seeds are whole numbers from 0 on"),
        ({"seeds": "0"}, "--seed 0: seeds are whole numbers"),
        ({"seeds": [0, 1.5]}, "--seed 0,1.5: seeds are whole numbers"),
        ({"seeds": []}, "seeds must be different"),
        ({"folds": -2}, "--folds -2: give the number of folds"),
        ({"folds": 1}, "--folds 1 would leave no image"),
    ],
)
def test_splits_of_wrong_numbers_are_not_made(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        cb.make_splits("shapes", tmp_path / "split", **changes)
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, r"iterations=0: Expected `int` >= 1"),
        ({"iterations": 1.5}, r"iterations=1.5: Expected `int`, got `float`"),
        ({"seed": -1}, r"seed=-1: Expected `int` >= 0"),
        ({"seed": 2**32}, r"seed=4294967296: Expected `int` <= 4294967295"),
        ({"padding": -3}, r"padding=-3: Expected `int` >= 1"),
        ({"method": ""}, "The method has no name"),
        ({"batch": "0+8"}, "--batch 0\\+8: write labelled and unlabelled images"),
        ({"options": ["a=NaN"]}, "--option a=NaN: numbers have to be finite"),
        ({"options": ["a=[1, 1e999]"]}, "--option a=.*: numbers have to be finite"),
    ],
)
def test_a_training_that_cannot_be_is_not_stated(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cb.state_training(**({"method": "mine", "detector": "r50-fpn", "iterations": 10} | changes))


def test_options_and_names_as_other_functions_take_them() -> None:
    by_name = cb.state_training("mine", "r50-fpn", 10, options={"beta": 0.7, "on": True})
    assert by_name == cb.state_training("mine", "r50-fpn", 10, options=["beta=0.7", "on=true"])
    one, listed = (cb.check_data(names, "nowhere") for names in ("r101-fpn", ["r101-fpn"]))
    assert one == listed


def test_what_cannot_be_scored_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    where: dict[str, Any] = {"split": finished / "split", "annotations": finished / "data" / "val.json"}
    with pytest.raises(UserError, match="--max-detections 0"):
        cb.evaluate(finished / "run" / "detections.json", max_detections=0, **where)
    training = cb.state_training("mine", "r50-fpn", 10)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="not empty, or a file"):
        cb.score(finished / "run" / "detections.json", out=file, training=training, **where)
    impossible = replace(training, seed=-1)
    with pytest.raises(UserError, match=r"`key.train_seed` is -1"):
        cb.score(finished / "run" / "detections.json", out=tmp_path / "run", training=impossible, **where)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    cb.score(finished / "run" / "detections.json", out=tmp_path / "run", training=training, **where)
    assert load_result(tmp_path / "run" / "result.json").key.method == "mine"


@pytest.mark.parametrize("bound", [float("nan"), -0.1, 5, "0.3"])
def test_a_bound_of_scores_is_a_score(finished: Path, tmp_path: Path, bound: Any) -> None:
    with pytest.raises(UserError, match=r"--min-score .*: scores are from 0 to 1"):
        errors_of(finished / "run", min_score=bound)
    with pytest.raises(UserError, match=r"--min-score .*: scores are from 0 to 1"):
        Predictor.predict_images(None, tmp_path, tmp_path / "out", min_score=bound)  # type: ignore[arg-type]


def test_folders_have_to_be_given(tmp_path: Path) -> None:
    for call in (lambda: cb.plot_splits([], tmp_path / "x.png"), lambda: cb.export_split([], tmp_path / "x")):
        with pytest.raises(UserError, match="No folder is given"):
            call()
    with pytest.raises(UserError, match="No folder is given"):
        cb.load_results([])


def test_a_submission_has_a_name_that_is_accepted(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"with letters, digits and `\.\+=_-` only"):
        cb.pack_submission(finished / "run", tmp_path / "my run", contact="A", licence="MIT", hardware="x")
    assert not list(tmp_path.iterdir())
