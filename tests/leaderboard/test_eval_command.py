"""`cissod-bench eval`: detections of any framework, scored and recorded without torch."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.evaluation import evaluate
from cissod_bench.results.record import load_result
from cissod_bench.tasks.records import VOC_CLASSES

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
        groups = {"maj": OTHERS, "min": VOC_CLASSES}  # noqa: RUF012
        class_names = (*OTHERS, *VOC_CLASSES)

    monkeypatch.setattr(manifest, "load_split", lambda folder, verify: Drawn())
    return Drawn.folder


def test_a_record_for_the_leaderboard(files, split):
    given = ["--predictions", files / "dt.json", "--split", split, "--annotations", files / "gt.json"]
    details = ["--method", "mine", "--iterations", 90_000, "--detector", "r50-fpn", "--seed", 3]
    result = run(*given, "--out", files / "run", *details)
    assert result.exit_code == 0, result.output
    record = load_result(files / "run" / "result.json")
    assert (record.key.method, record.key.train_seed, record.key.schedule) == ("mine", 3, "external")
    assert record.key.shortened  # 90,000 of 180,000
    assert (files / "run" / "detections.json").read_bytes() == (files / "dt.json").read_bytes()
    shown = CliRunner().invoke(app, ["report", str(files / "run")])
    assert "mine†" in shown.output
    again = run(*given, "--out", files / "run", *details)
    assert isinstance(again.exception, UserError)
    assert "not empty" in str(again.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give --task, or --split"),
        (["--task", "coco-split3"], "Did you mean"),
        (["--task", "coco-split1", "--data-root", "nowhere"], "--annotations"),
        (["--task", "coco-split1", "--out", "x"], "give --split, --method"),
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
