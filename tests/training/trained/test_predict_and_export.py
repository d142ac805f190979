"""A run's detector outside of the run: the same detections as in its evaluation, here and in mmdet."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from safetensors.torch import load_file
from scipy.spatial.distance import cdist
from typer.testing import CliRunner

from cissod_bench import api
from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.io import sha256_file
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.record import load_result
from cissod_bench.training.build_config import build_config
from cissod_bench.training.runner import run_job
from cissod_bench.training.trained.export import export_bundle, plain_config
from cissod_bench.training.trained.predict import Predictor, load_predictor
from tests.tiny import tiny_job


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    run_job(tiny_job(tiny, out, method="gbs", iterations=2))
    return out


def assert_same(found: Any, expected: Any) -> None:
    """Equal detections (class, score, box) up to rounding, which also decides the order of equal scores."""
    weights = np.array([1e4, 1e3, 1, 1, 1, 1])
    one, other = (np.asarray(rows, dtype=np.float64) * weights for rows in (found, expected))
    assert len(one) == len(other) > 0
    distances = cdist(one, other)
    assert max(distances.min(axis=0).max(), distances.min(axis=1).max()) < 0.1


def test_predict_finds_what_the_evaluation_found(run: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    arguments = ["predict", str(run), str(tiny / "val"), "--out", str(out), "--draw", "0.06", "--device", "cpu"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    names = {image["id"]: image["file_name"] for image in json.loads((tiny / "val.json").read_text())["images"]}
    listed = {image["id"]: image["file_name"] for image in json.loads((out / "images.json").read_text())["images"]}
    actual = json.loads((out / "detections.json").read_text())
    expected = json.loads((run / "detections.json").read_text())
    assert all(listed[entry["image_id"]] == entry["file_name"] for entry in actual)
    for name in names.values():
        assert_same(
            [(one["category_id"], one["score"], *one["bbox"]) for one in actual if one["file_name"] == name],
            [(one["category_id"], one["score"], *one["bbox"]) for one in expected if names[one["image_id"]] == name],
        )
    pictures = sorted((out / "pictures").iterdir())
    assert [path.name for path in pictures] == [path.name for path in sorted((tiny / "val").iterdir())]
    assert cv2.imread(str(pictures[0])).shape[0] > cv2.imread(str(tiny / "val" / pictures[0].name)).shape[0]


def test_one_image_is_enough(run: Path, tiny: Path, tmp_path: Path) -> None:
    file = sorted((tiny / "val").iterdir())[2]
    arguments = ["predict", str(run), str(file), "--out", str(tmp_path / "one"), "--draw", "0.06", "--device", "cpu"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "on 1 image with" in " ".join(result.output.split())
    (listed,) = json.loads((tmp_path / "one" / "images.json").read_text())["images"]
    assert listed["file_name"] == file.name
    assert [path.name for path in (tmp_path / "one" / "pictures").iterdir()] == [file.name]
    load_predictor(run).predict_images(tiny / "val", tmp_path / "all")
    boxes = {
        name: [entry["bbox"] for entry in json.loads((tmp_path / name / "detections.json").read_text())
               if entry["file_name"] == file.name]
        for name in ("one", "all")
    }  # fmt: skip
    assert boxes["one"] == boxes["all"] != []


def test_what_cannot_be_predicted_is_refused(run: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        load_predictor(tiny)
    with pytest.raises(UserError, match="no such file"):
        load_predictor(run, tmp_path / "nowhere.pth")
    trained = load_predictor(run)
    with pytest.raises(UserError, match="holds no images"):
        trained.predict_images(run / "checkpoints", tmp_path / "out")
    with pytest.raises(UserError, match="is not empty"):
        trained.predict_images(tiny / "val", run)
    with pytest.raises(UserError, match=r"val\.json: not an image\. Give an image \(.*\) or a folder of images"):
        trained.predict_images(tiny / "val.json", tmp_path / "out")
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        trained.predict_images(tmp_path / "nowhere", tmp_path / "out")
    shutil.copytree(tiny / "val", tmp_path / "cut")
    file = sorted((tmp_path / "cut").iterdir())[1]
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match=f"{file.name}: the file is cut off"):
        trained.predict_images(tmp_path / "cut", tmp_path / "out", drawn=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["cut"], "nothing of the first image is left"


def test_whether_detections_can_be_written_is_known_before_any_is_made(
    run: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cissod_bench.training.trained.predict.Predictor.predict", lambda *_: pytest.fail("work for nothing")
    )
    trained = load_predictor(run)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        trained.predict_images(tiny / "val", tmp_path / "file" / "out")
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "mounted")
    with pytest.raises(UserError, match="is a mount point"):
        trained.predict_images(tiny / "val", tmp_path / "mounted")


def flip_a_byte(file: Path) -> None:
    """Damage a file in its middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return shutil.copytree(run, tmp_path / "copied")


def test_a_damaged_newest_checkpoint_is_named(copied: Path) -> None:
    flip_a_byte(copied / "checkpoints" / "iter_2.pth")
    with pytest.warns(UserWarning, match=r"iter_2.pth is damaged; using .*iter_1.pth"):
        assert load_predictor(copied).checkpoint.name == "iter_1.pth"
    with pytest.raises(UserError, match=r"--checkpoint .*iter_2.pth: damaged, or no checkpoint"):
        load_predictor(copied, copied / "checkpoints" / "iter_2.pth")


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(run: Path, tiny: Path, tmp_path: Path) -> None:
    """One that has been trained otherwise on the same data fits the model."""
    run_job(tiny_job(tiny, tmp_path / "other", method="soft-teacher", iterations=1))
    other = tmp_path / "other" / "checkpoints" / "iter_1.pth"
    with pytest.raises(UserError, match=r"iter_1.pth belongs to another run than .*method is 'soft-teacher', not "):
        load_predictor(run, other)
    content = torch.load(other, weights_only=False)
    config = content["meta"]["cfg"].replace("'protocol': 1", "'protocol': 3").replace("'tiny'", "'coco'")
    torch.save(content | {"meta": content["meta"] | {"cfg": config}}, other)
    with pytest.raises(UserError, match=r"task is 'coco', not 'tiny'; protocol is 3, not 1"):
        load_predictor(tmp_path / "other", other)


def test_weights_are_exported_with_their_own_scores_alone(tiny: Path, tmp_path: Path) -> None:
    """And what the message says makes both again."""
    job = tiny_job(tiny, tmp_path / "run", iterations=2)
    run_job(job)
    export_bundle(job.out, tmp_path / "bundle")
    last = job.out / "checkpoints" / "iter_2.pth"
    for damage in (flip_a_byte, Path.unlink):
        damage(last)
        with warnings.catch_warnings(action="ignore"):
            message = r"iter_2.pth is missing or damaged, .* Move .*result.json away.* resumes from iter_1.pth"
            with pytest.raises(UserError, match=message):
                export_bundle(job.out, tmp_path / damage.__name__)
            assert not (tmp_path / damage.__name__).exists()
            (job.out / "result.json").unlink()
            run_job(job)
        export_bundle(job.out, tmp_path / damage.__name__)
        expected, actual = (load_file(tmp_path / name / "model.safetensors") for name in ("bundle", damage.__name__))
        assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_without_space_nothing_of_a_bundle_is_left(run: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"bundle cannot be written: .*large"):
            export_bundle(run, tmp_path / "bundle")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_bundle_loads_in_mmdet_with_the_same_detections(run: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    result = CliRunner().invoke(app, ["export", str(run), "--out", str(out)])
    assert result.exit_code == 0, result.output
    about = json.loads((out / "bundle.json").read_text())
    record = load_result(run / "result.json")
    assert about["key"]["split_digest"] == record.key.split_digest
    assert about["metrics"] == record.metrics
    assert len(about["per_class"]) == len(about["categories"]) == 12
    assert about["files"]["model.safetensors"] == sha256_file(out / "model.safetensors")

    model = init_detector(str(out / "config.py"), device="cpu")
    model.load_state_dict(load_file(out / "model.safetensors"))
    trained = load_predictor(run)
    for file in sorted((tiny / "val").iterdir()):
        found, expected = inference_detector(model, str(file)).pred_instances, trained.predict(file)
        corners = np.concatenate([expected.boxes[:, :2], expected.boxes[:, :2] + expected.boxes[:, 2:]], axis=1)
        assert_same(
            np.column_stack([found.labels, found.scores, found.bboxes]),
            np.column_stack([expected.labels, expected.scores, corners]),
        )
    assert CliRunner().invoke(app, ["export", str(run), "--out", str(out)]).exit_code != 0, "not empty"


def test_the_readme_of_a_bundle_works_word_for_word(run: Path, tiny: Path, tmp_path: Path) -> None:
    """In a process of its own, which has imported nothing: with a compiled mmcv where there is one, else without."""
    out = tmp_path / "bundle"
    export_bundle(run, out)
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), flags=re.DOTALL)
    shutil.copy(next((tiny / "val").iterdir()), out / "image.jpg")
    (out / "pasted.py").write_text(f"{code}\nprint(len(found), len(model.dataset_meta['classes']))\n")
    done = subprocess.run([sys.executable, "pasted.py"], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    detections, classes = map(int, done.stdout.split()[-2:])
    assert (detections > 0, classes) == (True, 12)


@pytest.mark.parametrize("method", METHODS)
def test_the_detector_of_every_method_is_exported(method: str, tiny: Path, tmp_path: Path) -> None:
    """The plain configuration gives the class scores and boxes of the framework's own teacher."""
    config = Config.fromstring(build_config(tiny_job(tiny, tmp_path / "run", method=method)).pretty_text, ".py")
    with DefaultScope.overwrite_default_scope("mmdet"):
        torch.manual_seed(0)
        teacher = MODELS.build(config.model).teacher
        teacher.init_weights()
        categories = [{"id": label, "name": name} for label, name in enumerate(config.val_evaluator.classes)]
        exported, own = plain_config(Predictor(teacher.eval(), config, categories, tmp_path))
        plain = MODELS.build(Config(exported).model).eval()
    missing, surplus = plain.load_state_dict(teacher.state_dict(), strict=False)
    assert not missing
    assert all(".loss_cls." in name for name in surplus)
    if method in ("supervised", "full-labels", "soft-teacher", "rfs"):
        assert own == [], "mmdet has all that these need at test time"
    image = torch.randn(1, 3, 128, 128)
    sides = torch.rand(50, 2) * 60
    boxes = torch.cat([sides, sides + 8 + torch.rand(50, 2) * 50], dim=1)
    meta = [{"img_shape": (128, 128), "scale_factor": (1.0, 1.0)}]
    with torch.no_grad():
        one, other = (
            detector.roi_head.predict_bbox(
                detector.extract_feat(image), meta, [InstanceData(bboxes=boxes)], rcnn_test_cfg=None, rescale=False
            )[0]
            for detector in (teacher, plain)
        )
    assert other.scores.std() > 0
    torch.testing.assert_close(other.scores, one.scores)
    torch.testing.assert_close(other.bboxes, one.bboxes)


def test_a_bundle_has_the_same_bytes_every_time(run: Path, tmp_path: Path) -> None:
    api.export(run, tmp_path / "a")
    program = "import sys; from cissod_bench import api; api.export(sys.argv[1], sys.argv[2])"
    environment = os.environ | {"PYTHONHASHSEED": "1234"}  # sets and dictionaries in another order
    subprocess.run([sys.executable, "-c", program, str(run), str(tmp_path / "b")], check=True, env=environment)
    api.export(run, tmp_path / "c")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["README.md", "bundle.json", "config.py", "model.safetensors"]
    for file in files:
        assert len({(tmp_path / name / file).read_bytes() for name in ("a", "b", "c")}) == 1, file


@pytest.mark.parametrize("text", ["{", "[]", '{"categories": []}', '{"categories": [{"id": 1}]}', "\x00"])
def test_a_damaged_list_of_classes_is_named(copied: Path, text: str) -> None:
    (copied / "validation_images.json").write_text(text)
    with pytest.raises(UserError, match=r"validation_images\.json"):
        load_predictor(copied)


def test_a_name_that_is_too_long_for_a_picture_is_known_before_it_is_drawn(
    run: Path, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(next((tiny / "val").iterdir()), tmp_path / "images" / f"{'x' * 243}.png")
    predictor = load_predictor(run)
    with pytest.raises(UserError, match="the name is too long for a picture"):
        predictor.predict_images(tmp_path / "images", tmp_path / "out", drawn=0.5)
    assert predictor.predict_images(tmp_path / "images", tmp_path / "out")[0] == 1
    shutil.move(tmp_path / "images" / f"{'x' * 243}.png", tmp_path / "images" / f"{'x' * 242}.png")
    predictor.predict_images(tmp_path / "images", tmp_path / "drawn", drawn=0.5)
