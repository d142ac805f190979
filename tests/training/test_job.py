"""Everything that can be wrong with a run is said before anything is written."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from mmcv.image.geometric import rescale_size
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.errors import Remark, UserError
from cissod_bench.tasks.registry import TASKS
from cissod_bench.training.data_paths import _check_shape, _NamedImage
from cissod_bench.training.run_plan import plan, plan_lines
from cissod_bench.training.validation import read_validation
from tests.tiny import tiny_job


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "soft-techer"}, r"Unknown method 'soft-techer'. Did you mean 'soft-teacher'\?"),
        ({"task": "coco-splt1"}, r"Unknown task 'coco-splt1'. Did you mean 'coco-split1'\?"),
        ({"schedule": "papr"}, r"Unknown schedule 'papr'. Did you mean 'paper'\?"),
        ({"detector": "r50"}, r"Unknown detector 'r50'. Did you mean 'r50-fpn'\?"),
        ({"evaluator": "hotcocoa"}, r"Did you mean 'hotcoco'\?"),
        ({"options": {"thetta": "0.5"}}, r"thetta.*Did you mean 'theta'\?"),
        ({"options": {"theta": "high"}}, "Option of method 'soft-teacher'"),
        ({"method": "gbs", "options": {"beta": "2"}}, r"Option of method 'gbs'.*beta"),
        ({"method": "gbs", "options": {"generations": "0"}}, r"Option of method 'gbs'.*generations"),
        ({"method": "gbs", "options": {"rho": "0.5"}}, r"Option of method 'gbs'.*rho"),
        ({"backbone": Path("nowhere.pth")}, "nowhere.pth: no such file. Give a ResNet-18"),
        ({"split": Path("nowhere")}, "nowhere"),
        ({"task": "shapes"}, "a split of task 'tiny', not of 'shapes'"),
    ],
)
def test_wrong_requests_are_refused(tiny: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_job(tiny, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    return folder


def test_a_task_file_edited_after_the_draw_is_refused(copy: Path, tmp_path: Path) -> None:
    task = copy / "task.toml"
    original = task.read_text()
    task.write_text(original.replace("fraction = 0.3", "fraction = 0.5"))
    with pytest.raises(UserError, match=r"selected with fraction = 0.3, but task 'tiny' has 0.5"):
        tiny_job(copy, tmp_path / "run")
    task.write_text(original.replace("crutch cross", "crutch kross"))
    with pytest.raises(UserError, match=r"Unknown minority class 'crutch kross'. Did you mean 'crutch cross'\?"):
        tiny_job(copy, tmp_path / "run")


def test_a_file_in_the_place_of_the_run_folder_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        tiny_job(tiny, tmp_path / "run")


def test_hidden_annotations_that_are_none_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        tiny_job(tiny, tmp_path / "run", hidden=tmp_path / "nowhere.json")
    with pytest.raises(UserError, match=r"task.toml"):
        tiny_job(tiny, tmp_path / "run", hidden=tiny / "task.toml")


def test_an_altered_split_is_refused(copy: Path, tmp_path: Path) -> None:
    labeled = copy / "split" / "labeled.json"
    labeled.write_text(labeled.read_text().replace("0", "1", 1))
    with pytest.raises(UserError, match=r"labeled.json differ"):
        tiny_job(copy, tmp_path / "run")


def test_another_protocol_version_is_refused(copy: Path, tmp_path: Path) -> None:
    task = copy / "task.toml"
    task.write_text(task.read_text().replace("version = 1", "version = 2"))
    with pytest.raises(UserError, match="protocol version 1 of task 'tiny', which is now at version 2") as refused:
        tiny_job(copy, tmp_path / "run")
    made_as_printed(refused)
    assert tiny_job(copy, tmp_path / "run").split.protocol == 2


def test_without_a_split_the_command_that_makes_one_is_printed(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "split")
    with pytest.raises(UserError, match="holds no split") as refused:
        tiny_job(copy, tmp_path / "run")
    made_as_printed(refused)
    assert tiny_job(copy, tmp_path / "run").split.protocol == 1


def made_as_printed(refused: pytest.ExceptionInfo[UserError]) -> None:
    """Run the command of a message."""
    _, command, _ = str(refused.value).split("`")
    program, *arguments = shlex.split(command)
    assert program == "cissod-bench"
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output


def test_missing_images_are_counted_and_named(copy: Path, tmp_path: Path) -> None:
    (copy / "train" / "000003.png").unlink()
    (copy / "val" / "000002.png").unlink()
    with pytest.raises(UserError, match=r"train lacks 1 of \d+ images of .*labeled.json, such as 000003.png"):
        tiny_job(copy, tmp_path / "run")
    shutil.copy(copy / "train" / "000004.png", copy / "train" / "000003.png")
    with pytest.raises(UserError, match=r"val lacks 1 of 6 images of .*val.json, such as 000002.png"):
        tiny_job(copy, tmp_path / "run")


def test_a_validation_file_without_a_class_is_refused(copy: Path, tmp_path: Path) -> None:
    file = copy / "val.json"
    content = json.loads(file.read_text())
    for category in content["categories"]:
        category["name"] = category["name"].replace("broken ring", "brokn ring")
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"val.json: Unknown class 'broken ring'. Did you mean 'brokn ring'\?"):
        tiny_job(copy, tmp_path / "run")


def test_blanks_around_class_names_do_not_matter(copy: Path, tmp_path: Path) -> None:
    """Objects365's files have trailing blanks."""
    file = copy / "val.json"
    before = file.read_text()
    file.write_text(before.replace('"broken ring"', '"broken ring "'))
    assert file.read_text() != before
    assert "broken ring" in tiny_job(copy, tmp_path / "run").split.class_names


def test_lvis_validation_images_are_named_by_their_address(tmp_path: Path) -> None:
    """LVIS has `coco_url` instead of `file_name`; Objects365's names hold folders that the archives lack."""
    file = tmp_path / "val.json"
    image = {
        "id": 3,
        "width": 4,
        "height": 5,
        "coco_url": "http://images.cocodataset.org/val2017/000000000003.jpg",
        "neg_category_ids": [],
        "not_exhaustive_category_ids": [],
    }
    file.write_text(json.dumps({"images": [image], "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    ((found,), _) = read_validation(TASKS["lvis"], file, tmp_path)
    assert found == {"id": 3, "file_name": "val2017/000000000003.jpg", "width": 4, "height": 5}
    image |= {"file_name": "images/v2/patch16/objects365_v2_00908726.jpg"}
    file.write_text(json.dumps({"images": [image], "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    ((found,), _) = read_validation(TASKS["coco-o365"], file, tmp_path)
    assert found["file_name"] == "patch16/objects365_v2_00908726.jpg"


def test_truncated_validation_annotations_are_refused(copy: Path, tmp_path: Path) -> None:
    file = copy / "val.json"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match=r"val.json"):
        tiny_job(copy, tmp_path / "run")


def test_the_plan_says_what_will_happen(tiny: Path, tmp_path: Path) -> None:
    job = tiny_job(tiny, tmp_path / "run", options={"theta": "0.6"})
    text = "\n".join(plan_lines(job))
    for part in (
        "soft-teacher on tiny with theta=0.6",
        "6 images a step: 4 labelled + 2 unlabelled",
        "4 iterations (short, shortened from 40)",
        job.split.digest[:12],
    ):
        assert part in text
    assert plan(job)["learning_rate"] == 1e-3


def test_the_learning_rate_scales_with_the_images_of_a_step(tiny: Path, tmp_path: Path) -> None:
    """The paper's 0.01 is for 8 x (1 + 4) images; one GPU has 5 of them."""
    job = tiny_job(tiny, tmp_path / "run", detector="r50-fpn")
    assert job.batch == (1, 4)
    assert job.learning_rate == pytest.approx(0.01 / 8)
    assert "0.00125 for 5 images a step (0.01 for 40, scaled linearly)" in "\n".join(plan_lines(job))


def test_validation_images_that_are_trained_on_are_refused(copy: Path, tmp_path: Path) -> None:
    """The parts number their files alike; what counts is what is in them."""
    shutil.copy(copy / "train" / "000002.png", copy / "val" / "000002.png")
    with pytest.raises(UserError, match=r"val\.json: 1 of 6 validation images are training images too.* 000002\.png"):
        tiny_job(copy, tmp_path / "run")


def test_validation_annotations_that_evaluation_would_refuse_are_refused_by_the_plan(
    copy: Path, tmp_path: Path
) -> None:
    file = copy / "val.json"
    content = json.loads(file.read_text())
    content["annotations"][3]["bbox"] = None
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"val\.json: annotation 3 has a box that is not finite"):
        tiny_job(copy, tmp_path / "run")


def test_a_class_of_the_validation_annotations_alone_is_a_remark(copy: Path, tmp_path: Path) -> None:
    file = copy / "val.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 77, "name": "teapot"})
    file.write_text(json.dumps(content))
    with pytest.warns(Remark, match=r"val\.json: teapot \(1 of \d+ classes\) are not classes of the task"):
        tiny_job(copy, tmp_path / "run")


@pytest.mark.parametrize(("size", "refused"), [((64, 1), False), ((1, 300), True), ((600, 2), True)])
def test_an_image_that_resizing_leaves_no_pixel_is_refused(size: tuple[int, int], refused: bool) -> None:
    image = _NamedImage("strip.png", *size)
    if refused:
        with pytest.raises(
            UserError, match=rf"strip\.png: {size[0]} x {size[1]} pixels; resized to at most 128 pixels"
        ):
            _check_shape(image, Path("images"), [(128, 128)])
    else:
        _check_shape(image, Path("images"), [(128, 128)])
    # What mmcv makes of it.
    width, height = rescale_size(size, (128, 128))
    assert (min(width, height) == 0) == refused


def test_a_plan_looks_at_the_run_folder(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").touch()
    given = ["run", "--task", str(tiny / "task.toml"), "--split", str(tiny / "split"), "--data-root", str(tiny)]
    given += ["--method", "soft-teacher", "--device", "cpu", "--plan", "--out"]
    assert CliRunner().invoke(app, [*given, str(tmp_path / "new")]).exit_code == 0
    refused = CliRunner().invoke(app, [*given, str(tmp_path / "own")])
    assert "own: the folder is not empty and holds no run" in str(refused.exception)
    assert list(tmp_path.rglob("*")) == [tmp_path / "own", tmp_path / "own" / "notes.txt"]
