"""`cissod-bench eval`: detections of any framework, scored and recorded without torch."""

import hashlib
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.evaluation import evaluate
from cissod_bench.methods.registry import METHODS
from cissod_bench.results.record import load_result
from cissod_bench.results.run_key import RunKey, comparison_key
from cissod_bench.tasks.records import VOC_CLASSES
from cissod_bench.training.recipes.detectors import get_detector
from cissod_bench.training.spec import RunSpec, choose_method

OTHERS = ("truck", "zebra", "fork")


@pytest.fixture
def files(tmp_path):
    """Ground truth with the 20 minority classes of coco-split1 and three others, and detections of half of it."""
    names = [*VOC_CLASSES, *OTHERS]
    boxes = [
        {"id": 100 * image + kind, "image_id": image, "category_id": kind, "bbox": [9 * kind, 5, 30 + image, 40]}
        for image in (1, 2) for kind in range(1, len(names) + 1)
    ]  # fmt: skip
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names, start=1)],
        "annotations": boxes,
    }
    found = [
        {"image_id": box["image_id"], "category_id": box["category_id"], "bbox": box["bbox"], "score": 0.9}
        for box in boxes if box["image_id"] == 1 or box["category_id"] > 20
    ]  # fmt: skip
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(found))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_groups_of_a_built_in_task(files):
    result = run(
        "--predictions", files / "dt.json", "--task", "coco-split1", "--annotations", files / "gt.json", "--json"
    )
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    expected = evaluate(files / "gt.json", files / "dt.json", {"maj": OTHERS, "min": VOC_CLASSES})
    assert content["metrics"] == expected.metrics()
    assert content["classes"] == {"all": 23, "maj": 3, "min": 20}
    assert content["metrics"]["maj"]["AP"] > content["metrics"]["min"]["AP"] > 0.4


def test_the_table_for_people(files):
    result = run("--predictions", files / "dt.json", "--task", "coco-split1", "--annotations", files / "gt.json")
    assert result.exit_code == 0
    assert "100.0" in result.output
    assert "COCO rules, 100 detections per image" in result.output


@pytest.fixture
def split(monkeypatch, tmp_path):
    """A split folder as far as `eval` reads it."""
    from cissod_bench.splits import folder as manifest

    class Drawn:
        folder = tmp_path / "split"
        task, protocol, seed, digest, validation_file = "coco-split1", 1, 0, "a" * 64, None
        source = {"images": 80, "boxes": 700}  # noqa: RUF012
        groups = {"maj": OTHERS, "min": VOC_CLASSES}  # noqa: RUF012
        class_names = (*OTHERS, *VOC_CLASSES)
        label_fraction, options = 0.1, {"fraction": 0.1}
        counts = {"labeled_images": 8, "labeled_boxes": 70}  # noqa: RUF012

    monkeypatch.setattr(manifest, "load_split", lambda folder, verify: Drawn())
    return Drawn.folder


def test_a_record_for_the_leaderboard(files, split):
    given = ["--predictions", files / "dt.json", "--split", split, "--annotations", files / "gt.json"]
    details = ["--method", "mine", "--iterations", 90_000, "--detector", "r50-fpn", "--seed", 3]
    result = run(*given, "--out", files / "run", *details)
    assert result.exit_code == 0, result.output
    record = load_result(files / "run" / "result.json")
    assert (record.key.method, record.key.train_seed, record.key.schedule) == ("mine", 3, "external")
    assert (record.key.shortened, record.key.batch, record.key.backbone) == (None, None, "not stated")
    assert record.data == {
        "train_images": 80, "train_annotations": 700, "validation_images": 2, "validation_annotations": 46,
        "labeled_images": 8, "labeled_boxes": 70,
    }  # fmt: skip
    assert record.split_options == {"fraction": 0.1}
    assert (files / "run" / "detections.json").read_bytes() == (files / "dt.json").read_bytes()
    shown = CliRunner().invoke(app, ["report", str(files / "run")])
    assert "mine" in shown.output
    assert "mine†" not in shown.output, "what is not stated is not taken for shortened"
    again = run(*given, "--out", files / "run", *details)
    assert isinstance(again.exception, UserError)
    assert "not empty" in str(again.exception)


def test_an_equal_protocol_gives_an_equal_key(files, split):
    given = ["--predictions", files / "dt.json", "--split", split, "--annotations", files / "gt.json"]
    details = ["--method", "mine", "--iterations", 90_000, "--detector", "r50-fpn", "--seed", 3, "--schedule", "paper"]
    weights = files / "r50.pth"
    weights.write_bytes(b"weights")
    protocol = ["--batch", "16+64", "--backbone", weights, "--precision", "fp32", "--padding", 32]
    result = run(*given, "--out", files / "run", *details, *protocol, "-o", "beta=0.8")
    assert result.exit_code == 0, result.output
    key = load_result(files / "run" / "result.json").key
    ours = RunKey(
        task="coco-split1", protocol=1, split_digest="a" * 64, split_seed=0, train_seed=0, method="gbs",
        method_options={}, schedule="paper", iterations=90_000, shortened=False, detector="r50-fpn",
        evaluator="hotcoco", max_detections=100, batch=(16, 64), precision="fp32", padding=32,
        backbone=hashlib.sha256(b"weights").hexdigest(),
    )  # fmt: skip
    assert comparison_key(key) == comparison_key(ours)
    assert (key.method_options, key.method_version) == ({"beta": 0.8}, None)


def test_settings_a_compiled_backbone_and_the_methods_version_can_be_stated(files, split):
    """So a training by this package's method and settings can have the key of one of its own runs."""
    given = ["--predictions", files / "dt.json", "--split", split, "--annotations", files / "gt.json"]
    details = ["--method", "gbs", "--iterations", 90_000, "--detector", "r50-fpn", "--seed", 3]
    stated = ["--set", "optim_wrapper.optimizer.lr=0.005", "--set", "param_scheduler.1.milestones=[1, 2]", "--compile"]
    assert run(*given, *details, *stated, "--method-version", 2, "--out", files / "run").exit_code == 0
    assert run(*given, *details, "--out", files / "plain").exit_code == 0
    key, plain = (load_result(files / name / "result.json").key for name in ("run", "plain"))
    spec = RunSpec(
        task="coco-split1", method="gbs", compile=True,
        overrides={"optim_wrapper.optimizer.lr": 0.005, "param_scheduler.1.milestones": [1, 2]},
    )  # fmt: skip
    assert (key.overrides, key.compile, key.method_version) == (spec.overrides, spec.compile, 2)
    assert (plain.overrides, plain.compile, plain.method_version) == ({}, False, None)
    assert comparison_key(key) != comparison_key(plain)


def test_the_options_of_a_method_are_those_of_a_run(files, split):
    """An equal training has an equal row: with the version stated, the other options are its defaults."""
    given = ["--predictions", files / "dt.json", "--split", split, "--annotations", files / "gt.json"]
    details = ["--method", "gbs", "--iterations", 90_000, "--detector", "r50-fpn", "--seed", 3]
    stated = ["-o", "gamma=2.0", "-o", "beta=0.5", "--method-version", METHODS["gbs"].version]
    assert run(*given, *details, *stated, "--out", files / "run").exit_code == 0
    key = load_result(files / "run" / "result.json").key
    ours = choose_method(RunSpec(task="coco-split1", method="gbs", options={"gamma": "2"}))
    assert (key.method_options, key.resolved_options) == (ours.changed(), ours.resolved()), "beta is the default"
    for wrong, message in (
        (["--method-version", 99], "gbs is at version"),
        (["-o", "nonsense=3"], "nonsense"),
    ):
        failed = run(*given, *details, *wrong, "--out", files / "wrong")
        assert isinstance(failed.exception, UserError)
        assert message in str(failed.exception)
        assert not (files / "wrong").exists()


def test_programs_are_told_that_the_data_are_not_official(files, split):
    given = ["--predictions", files / "dt.json", "--annotations", files / "gt.json", "--json"]
    alone = json.loads(run(*given, "--task", "coco-split1").stdout)["unofficial"]
    assert alone == ["2 validation images instead of 5,000", "46 validation annotations instead of 36,781"]
    assert "80 train images instead of 118,287" in json.loads(run(*given, "--split", split).stdout)["unofficial"]


def test_a_detector_file_is_stated_by_what_it_says(files, split):
    given = ["--predictions", files / "dt.json", "--split", split, "--annotations", files / "gt.json"]
    details = ["--method", "gbs", "--iterations", 90_000, "--batch", "8+32"]
    file = files / "mine.py"
    file.write_text("model = dict()\n")
    assert run(*given, *details, "--detector", file, "--out", files / "run").exit_code == 0
    key, detector = load_result(files / "run" / "result.json").key, get_detector(str(file))
    assert (key.detector, key.detector_digest, key.shortened) == ("mine", detector.file.digest, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "40"], "write labelled and unlabelled images in a step as 8+32"),
        (["--backbone", "nowhere.pth"], "no such file"),
        (["--precision", "fp8"], "Unknown precision 'fp8'"),
        (["-o", "beta"], "write NAME=VALUE"),
    ],
)
def test_what_is_stated_wrongly_is_refused_before_scoring(files, split, arguments, message):
    details = ["--method", "mine", "--iterations", 1, "--detector", "r50-fpn", "--out", files / "run"]
    result = run("--predictions", "missing.json", "--split", split, *details, *arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_parts_of_a_record_need_a_record(files):
    arguments = ["--task", "coco-split1", "--annotations", files / "gt.json", "--seed", 0, "--compile", "-o", "a=1"]
    result = run("--predictions", files / "dt.json", *arguments)
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith("--seed, --option, --compile: part of the record that --out writes.")


def test_a_plot_takes_no_files_place(files):
    (files / "mine.svg").write_text("mine")
    arguments = ["--task", "coco-split1", "--annotations", files / "gt.json", "--calibration-plot", files / "mine.svg"]
    result = run("--predictions", files / "dt.json", *arguments)
    assert "exists already" in str(result.exception)
    assert (files / "mine.svg").read_text() == "mine"


def test_other_data_than_the_official_is_named(files):
    result = run("--predictions", files / "dt.json", "--task", "coco-split1", "--annotations", files / "gt.json")
    assert "2 validation images instead of 5,000" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give --task, or --split"),
        (["--task", "coco-split3"], "Did you mean"),
        (["--task", "coco-split1", "--data-root", "nowhere"], "--annotations"),
        (["--task", "coco-split1", "--out", "x"], "Give --split, --method"),
        (["--task", "lvis", "--annotations", "gt.json"], "give --split"),
        (["--task", "shapes"], "give --split"),
    ],
)
def test_what_is_missing_is_said(files, arguments, message, monkeypatch):
    monkeypatch.chdir(files)
    result = run("--predictions", "dt.json", *arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert not (files / "x").exists()


def test_bad_detections_leave_no_folder(files, split):
    (files / "dt.json").write_text('[{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]')
    details = ["--method", "mine", "--iterations", 1, "--detector", "r50-fpn", "--out", files / "run"]
    result = run("--predictions", files / "dt.json", "--split", split, "--annotations", files / "gt.json", *details)
    assert "is on an image" in str(result.exception)
    assert not (files / "run").exists()


def test_neither_eval_nor_report_imports_torch(files, run_folder):
    folder = run_folder("a")
    commands = [
        ["eval", "--predictions", "dt.json", "--task", "coco-split1", "--annotations", "gt.json"],
        ["report", str(folder), "--out", "out"],
    ]
    code = (
        "import sys; from typer.testing import CliRunner; from cissod_bench.cli.main import app\n"
        f"for command in {commands!r}:\n"
        "    assert CliRunner().invoke(app, command).exit_code == 0, command\n"
        "print(sorted({'torch', 'mmdet', 'mmengine', 'mmcv'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=files, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
