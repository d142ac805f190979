"""Seven ways in which tables were made to lie, each by commands alone, so that any version can be asked.

    python benchmarks/seven_ways.py --folder WORK
    PYTHONPATH=OTHER_TREE python benchmarks/seven_ways.py --folder WORK

Each way prints what the version says, and whether it still lies:

1. records of other package and torch versions and of a dirty tree, averaged as seeds;
2. the paper's numbers beside `coco-split1` drawn from 80 images;
3. tables of runs with other settings, under one title, label and file name;
4. an exported split, trained on with the labels that lie beside the images;
5. backbone weights for other inputs, or of another depth;
6. the README of an exported bundle, pasted into a new process;
7. detections of an equal training, scored by `eval --out`.

The data are made up: 80 images with noise, boxes anywhere. A run of one iteration takes most of the time.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

VOC = ("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
       "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv")  # fmt: skip
TASK = """
name = "toy"
[data]
train_annotations = "train.json"
train_images = "data/images"
val_annotations = "val.json"
val_images = "val"
[groups]
minority = ["class 0", "class 1"]
[labeled]
fraction = 0.4
floor = 8
[training]
detector = "r18-small"
iterations = 1000
"""


def command(*arguments: object, folder: Path) -> tuple[int, str]:
    """Exit code and output of a command of the version in use."""
    words = [sys.executable, "-m", "cissod_bench.cli.main", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def annotations(names: list[str], images: int, seed: int) -> dict[str, Any]:
    """A COCO file: later classes are more frequent."""
    numbers = random.Random(seed)
    weights = [1 + kind for kind in range(len(names))]
    content: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{n:03}.png", "width": 96, "height": 96} for n in range(1, images + 1)],
        "categories": [{"id": kind, "name": name} for kind, name in enumerate(names, 1)],
        "annotations": [],
    }
    for image in content["images"]:
        for kind in numbers.choices(range(1, len(names) + 1), weights, k=4):
            x, y, side = numbers.randrange(60), numbers.randrange(60), numbers.randrange(20, 36)
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": image["id"], "category_id": kind,
                 "bbox": [x, y, side, side], "area": side * side, "iscrowd": 0}
            )  # fmt: skip
    return content


def found_boxes(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Detections: every box of the ground truth."""
    return [{name: box[name] for name in ("image_id", "category_id", "bbox")} | {"score": 0.9}
            for box in truth["annotations"]]  # fmt: skip


def make_data(folder: Path) -> None:
    """The toy task with images, its split, and the files of `coco-split1`."""
    import numpy as np
    from PIL import Image

    numbers = np.random.default_rng(0)
    for name, images, where in (("train", 80, folder / "data" / "images"), ("val", 20, folder / "val")):
        content = annotations([f"class {number}" for number in range(6)], images, seed=images)
        where.mkdir(parents=True)
        for image in content["images"]:
            image["file_name"] = name[0] + image["file_name"]
            Image.fromarray(numbers.integers(0, 255, (96, 96, 3), np.uint8)).save(where / image["file_name"])
        write(folder / f"{name}.json", content)
        write(folder / f"{name}-found.json", found_boxes(content))
    (folder / "toy.toml").write_text(TASK)
    coco = annotations([*VOC, *(f"other {number}" for number in range(60))], 80, seed=1)
    write(folder / "coco.json", coco)
    write(folder / "coco-found.json", found_boxes(coco))
    expect(command("make-splits", "--task", "toy.toml", "--annotations", "train.json", "--out", "split", folder=folder))
    expect(
        command("make-splits", "--task", "coco-split1", "--annotations", "coco.json", "--out", "coco", folder=folder)
    )


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def expect(outcome: tuple[int, str]) -> str:
    """The output of a command that has to succeed."""
    if outcome[0]:
        sys.exit(outcome[1])
    return outcome[1]


def scored(folder: Path, out: str, *arguments: object, method: str = "soft-teacher") -> Path:
    """A run folder that `eval --out` writes for detections of the toy task."""
    given = ("--predictions", "val-found.json", "--task", "toy.toml", "--split", "split", "--data-root", ".")
    named = ("--method", method, "--detector", "r18-small", "--out", out, *arguments)
    expect(command("eval", *given, *named, folder=folder))
    return folder / out


def changed(run: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a run with another record."""
    shutil.copytree(run, out)
    record = json.loads((out / "result.json").read_text())
    change(record)
    write(out / "result.json", record)
    return out


def records_of_other_versions(folder: Path) -> tuple[bool, str]:
    def other(record: dict[str, Any]) -> None:
        record["package_version"] = "0.0.9"
        record["environment"]["torch"] = "1.9.0"
        record["git"] = {"commit": "d" * 40, "dirty": True}
        record["key"]["train_seed"] = 1

    run = scored(folder, "1/a", "--iterations", 1000, "--seed", 0)
    changed(run, folder / "1" / "b", other)
    said = expect(command("report", "1", folder=folder))
    return "± 0.0" in said, said


def the_papers_numbers(folder: Path) -> tuple[bool, str]:
    given = ("--predictions", "coco-found.json", "--split", "coco", "--annotations", "coco.json", "--out", "2")
    named = ("--method", "gbs", "--detector", "r50-fpn", "--schedule", "paper", "--iterations", 180_000, "--seed", 0)
    expect(command("eval", *given, *named, folder=folder))
    said = expect(command("report", "2", folder=folder))
    return "26.5" in said, said


def tables_of_one_name(folder: Path) -> tuple[bool, str]:
    run = scored(folder, "3/a", "--iterations", 1000, "--seed", 0)
    for name, rate in (("b", 0.02), ("c", 0.005)):
        settings = {"optim_wrapper.optimizer.lr": rate}
        changed(run, folder / "3" / name, lambda record, settings=settings: record["key"].update(overrides=settings))
    expect(command("report", "3", "--out", "report", folder=folder))
    tables = (folder / "report" / "tables.tex").read_text()
    labels = Counter(re.findall(r"\\label\{(.*?)\}", tables))
    plots = sorted(path.name for path in (folder / "report").rglob("*.svg"))
    said = f"labels {dict(labels)}\nplots {plots}"
    return max(labels.values()) > 1, said


def exported_labels(folder: Path) -> tuple[bool, str]:
    """A trainer reads `labels/` where a path has `images/`, as YOLO's do."""
    content = json.loads((folder / "train.json").read_text())
    for image in content["images"]:
        kinds = [box["category_id"] - 1 for box in content["annotations"] if box["image_id"] == image["id"]]
        file = folder / "data" / "labels" / image["file_name"].replace(".png", ".txt")
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(f"{kind} 0.5 0.5 0.1 0.1\n" for kind in kinds))
    images = folder / "data" / "images"
    expect(command("splits", "export", "split", "--form", "yolo", "--images", images, "--out", "yolo", folder=folder))
    seen: Counter[int] = Counter()
    for line in (folder / "yolo" / "labeled.txt").read_text().splitlines():
        before, _, name = line.replace("./", f"{folder}/yolo/", 1).rpartition("/images/")
        rows = Path(before, "labels", name.replace(".png", ".txt")).read_text().splitlines()
        seen.update(int(row.split()[0]) for row in rows)
    allowed = json.loads((folder / "split" / "labeled.json").read_text())["annotations"]
    wanted = Counter(box["category_id"] - 1 for box in allowed)
    said = f"minority boxes that a trainer reads: {seen[0] + seen[1]}; in D_l: {wanted[0] + wanted[1]}"
    return seen != wanted, said


def wrong_weights(folder: Path) -> tuple[bool, str]:
    """ResNet-50 with the first layer of torchvision's kind for the caffe-style preset; and ResNet-50 for depth 101."""
    import torch
    from torchvision.models import resnet50

    torch.manual_seed(0)
    backbone = resnet50(weights=None)
    backbone.bn1.momentum = 1.0
    backbone.bn1.weight.data.fill_(0.25)
    image = torch.nn.functional.interpolate(torch.randn(4, 3, 16, 16), scale_factor=8, mode="bilinear")
    with torch.no_grad():
        backbone(image / image.std())
    torch.save(backbone.state_dict(), folder / "r50.pth")
    run = ("run", "--task", "toy.toml", "--method", "gbs", "--split", "split", "--data-root", ".", "--iterations", 1,
           "--device", "cpu", "--detector", "r50-fpn", "--backbone", "r50.pth", "--plan", "--out", "5")  # fmt: skip
    inputs = command(*run, folder=folder)
    depth = command(*run, "--set", "model.detector.backbone.depth=101", folder=folder)
    said = "".join(f"exit code {code}: {text.strip().splitlines()[-1]}\n" for code, text in (inputs, depth))
    return inputs[0] == 0 or depth[0] == 0, said


def a_real_run(folder: Path) -> Path:
    run = ("run", "--task", "toy.toml", "--method", "soft-teacher", "--split", "split", "--data-root", ".", "--device",
           "cpu", "--iterations", 1, "--out", "run", "--threads", 1, "--logger", "none")  # fmt: skip
    if not (folder / "run").exists():
        expect(command(*run, folder=folder))
    return folder / "run"


def the_bundles_readme(folder: Path) -> tuple[bool, str]:
    a_real_run(folder)
    expect(command("export", "run", "--out", "bundle", folder=folder))
    bundle = folder / "bundle"
    (code,) = re.findall(r"```python\n(.*?)```", (bundle / "README.md").read_text(), flags=re.DOTALL)
    shutil.copy(folder / "val" / "v001.png", bundle / "image.jpg")
    done = subprocess.run([sys.executable, "-c", code], cwd=bundle, capture_output=True, text=True)
    return done.returncode != 0, (done.stderr.strip().splitlines() or ["no error"])[-1]


def an_equal_training(folder: Path) -> tuple[bool, str]:
    key = json.loads((a_real_run(folder) / "result.json").read_text())["key"]
    protocol = {"--schedule": key["schedule"], "--batch": "{}+{}".format(*key["batch"]), "--backbone": "none",
                "--precision": key.get("precision"), "--padding": key.get("padding")}  # fmt: skip
    known = expect(command("eval", "--help", folder=folder))
    stated = [word for name, value in protocol.items() if name in known for word in (name, value)]
    scored(folder, "7", "--iterations", key["iterations"], "--seed", 1, *stated, method="mine")
    found = json.loads((folder / "7" / "result.json").read_text())["key"]
    said = expect(command("report", "run", "7", folder=folder))
    apart = "not comparable" in said.lower()
    differing = {
        name: (key[name], found[name]) for name in ("batch", "backbone", "schedule") if key[name] != found[name]
    }
    return (
        apart,
        f"{'two tables' if apart else 'one table'}; the key differs in {differing or 'nothing of the protocol'}",
    )


WAYS = (
    records_of_other_versions, the_papers_numbers, tables_of_one_name, exported_labels, wrong_weights,
    the_bundles_readme, an_equal_training,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder to create, for data and runs")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of ways; default: all")
    given = parser.parse_args()
    folder = given.folder.absolute()
    folder.mkdir(parents=True)
    make_data(folder)
    lies = 0
    for number, way in enumerate(WAYS, 1):
        if given.only and number not in given.only:
            continue
        lie, said = way(folder)
        lies += lie
        print(
            f"== {number}. {way.__name__.replace('_', ' ')}: {'LIES' if lie else 'does not lie'}\n{said.strip()}\n",
            flush=True,
        )
    print(f"{lies} of {len(given.only or WAYS)} lie")
    sys.exit(lies > 0)


if __name__ == "__main__":
    main()
