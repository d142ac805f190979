"""The facts that `data list` prints, and the commands."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cissod_bench.cli.main import app
from cissod_bench.downloads import catalog
from cissod_bench.downloads.catalog import NEEDS, SOURCES
from cissod_bench.errors import UserError
from cissod_bench.tasks.official import SIZES
from cissod_bench.tasks.registry import TASKS
from cissod_bench.training.backbone import CAFFE, TORCHVISION
from cissod_bench.training.recipes.detectors import DETECTORS
from tests.downloads.server import Behaviour, serving, weights

DIGITS = {"md5": 32, "sha256": 64}


def test_every_task_and_preset_is_listed() -> None:
    assert NEEDS.keys() == {*TASKS, *DETECTORS}
    assert {name for needed in NEEDS.values() for name in needed} == SOURCES.keys()


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.files is not None])
def test_a_task_finds_its_files_where_its_sources_put_them(name: str) -> None:
    files = TASKS[name].files
    assert files is not None
    places = {item.path for source in catalog.find_sources([name]) for item in source.items}
    wanted = {files.train_annotations, files.val_annotations, files.val_images}
    wanted |= {files.majority_annotations} - {""}
    for path in wanted - {"coco"}:
        assert path in places
    if files.val_images == "coco":
        assert {"coco/train2017", "coco/val2017"} <= places


def test_numbers_of_images_are_the_official_ones() -> None:
    images = {item.path: item.images for item in SOURCES["coco-images"].items}
    assert images["coco/train2017"] == SIZES["coco-split1"]["train_images"]
    assert images["coco/val2017"] == SIZES["coco-split1"]["validation_images"]


def test_checksums_are_whole_and_agree_with_names() -> None:
    for source in SOURCES.values():
        assert source.downloads or source.by_hand
        for download in source.downloads:
            algorithm, _, digits = download.checksum.partition(":")
            named = re.search(r"-([0-9a-f]{8})\.pth$", download.name)
            if named is None:
                assert len(digits) == DIGITS[algorithm]
            else:
                assert algorithm == "sha256"
                assert digits[:8] == named[1]
    resnets = [SOURCES[name].downloads[0] for name in ("resnet50-torchvision", "resnet101-torchvision")]
    assert {download.checksum[7:15] for download in resnets} <= set(TORCHVISION)
    assert SOURCES["resnet50-caffe"].downloads[0].checksum[7:15] in CAFFE


def test_list_and_check(tmp_path: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["data", "list", "lvis"])
    assert "https://dl.fbaipublicfiles.com/LVIS/lvis_v1_train.json.zip" in shown.stdout
    assert "coco/train2017" in shown.stdout
    listed = json.loads(runner.invoke(app, ["data", "list", "--json"]).stdout)
    assert [entry["name"] for entry in listed] == list(SOURCES)
    done = runner.invoke(app, ["data", "check", "r101-fpn", "--data-root", str(tmp_path), "--json"])
    assert isinstance(done.exception, UserError)
    assert [entry["state"] for entry in json.loads(done.stdout)] == ["missing"]
    assert "1 of 1" in str(done.exception)
    unknown = runner.invoke(app, ["data", "check", "objects356"])
    assert "Did you mean 'objects365'?" in str(unknown.exception)


def test_what_needs_a_form_says_how(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "fetch", "objects365", "--data-root", str(tmp_path)])
    assert isinstance(done.exception, UserError)
    assert "https://www.objects365.org/download.html" in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_fetch_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights" * 1000
    with serving(Behaviour({"net.pth": content})) as address:
        monkeypatch.setitem(SOURCES, "resnet101-torchvision", weights(address, content))
        done = CliRunner().invoke(app, ["data", "fetch", "r101-fpn", "--data-root", str(tmp_path)])
    assert done.exit_code == 0, done.exception
    assert (tmp_path / "weights/net.pth").read_bytes() == content
    full = CliRunner().invoke(app, ["data", "check", "r101-fpn", "--full", "--data-root", str(tmp_path)])
    assert "sha256 agrees" in full.stdout
