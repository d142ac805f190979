"""Speed and memory of evaluation and report, side by side with pycocotools, on made-up data of the real sizes.

    python benchmarks/evaluation.py              all of it (about 5 minutes on 2 cores, pycocotools most of it)
    python benchmarks/evaluation.py coco lvis    some of it: coco, lvis, objects365, bootstrap, report

Every case runs in a process of its own, which reads JSON files from a temporary folder as a user's would be, and is
measured from start to end with its peak memory.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = {  # images, classes, objects, detections
    "coco": (5_000, 80, 36_000, 500_000),
    "lvis": (19_809, 1_203, 244_707, 5_942_700),
    "objects365": (80_000, 365, 1_240_587, 8_000_000),
}


def make_data(folder: Path, images: int, classes: int, objects: int, found: int, *, lvis: bool) -> None:
    """Ground truth with classes of falling frequency, and detections of which three in ten are near an object."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, classes + 1) ** 1.2
    truth_image = rng.integers(1, images + 1, objects)
    truth_class = rng.choice(classes, objects, p=share / share.sum()) + 1
    truth_box = np.column_stack((rng.uniform(0, 400, (objects, 2)), rng.uniform(8, 200, (objects, 2)))).round(2)
    source = rng.integers(0, objects, found)
    near = rng.random(found) < 0.3
    image = np.where(near, truth_image[source], rng.integers(1, images + 1, found))
    kind = np.where(near, truth_class[source], rng.choice(classes, found, p=share / share.sum()) + 1)
    other = np.column_stack((rng.uniform(0, 400, (found, 2)), rng.uniform(8, 200, (found, 2))))
    box = np.where(near[:, None], truth_box[source] + rng.normal(0, 6, (found, 4)), other)
    box[:, 2:] = np.abs(box[:, 2:]) + 1
    score = np.where(near, rng.beta(3, 2, found), rng.beta(1, 5, found))
    negatives = rng.integers(1, classes + 1, (images, 10))
    records = [
        {"id": i, "file_name": f"{i:012}.jpg", "width": 640, "height": 480}
        | ({"neg_category_ids": negatives[i - 1].tolist(), "not_exhaustive_category_ids": []} if lvis else {})
        for i in range(1, images + 1)
    ]
    names = [
        {"id": k, "name": f"class {k}", "frequency": "fcr"[min(k * 3 // classes, 2)]} for k in range(1, classes + 1)
    ]
    with (folder / "gt.json").open("w") as file:
        file.write(f'{{"images": {json.dumps(records)}, "categories": {json.dumps(names)}, "annotations": [')
        rows = zip(truth_image.tolist(), truth_class.tolist(), truth_box.tolist(), strict=True)
        file.writelines(
            f'{", " if n else ""}{{"id": {n + 1}, "image_id": {i}, "category_id": {k}, "bbox": {b}, '
            f'"area": {b[2] * b[3]}, "iscrowd": 0}}'
            for n, (i, k, b) in enumerate(rows)
        )
        file.write("]}")
    with (folder / "dt.json").open("w") as file:
        file.write("[")
        rows4 = zip(image.tolist(), kind.tolist(), box.round(2).tolist(), score.round(5).tolist(), strict=True)
        file.writelines(
            f'{", " if n else ""}{{"image_id": {i}, "category_id": {k}, "bbox": {b}, "score": {s}}}'
            for n, (i, k, b, s) in enumerate(rows4)
        )
        file.write("]")


def score(folder: Path, evaluator: str, lvis: bool) -> None:
    from cissod_bench.evaluation import evaluate

    classes = SIZES[folder.name][1]
    names = [f"class {k}" for k in range(1, classes + 1)]
    groups = {"f": names[: classes // 3], "c": names[classes // 3 : classes // 2], "r": names[classes // 2 :]}
    result = evaluate(
        folder / "gt.json",
        folder / "dt.json",
        groups,
        evaluator=evaluator,
        max_detections=300 if lvis else 100,
        lvis=lvis,
    )
    print({group: round(row["AP"], 6) for group, row in result.metrics().items()}, end=" ")


def pycocotools_alone(folder: Path) -> None:
    """The official library as its manual says, without this package."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "gt.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "dt.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    print({"all": round(float(evaluation.stats[0]), 6)}, end=" ")


def bootstrap(folder: Path) -> None:
    from cissod_bench.evaluation.bootstrap import bootstrap_ap, image_samples
    from cissod_bench.evaluation.inputs import read_detections, read_ground_truth
    from cissod_bench.evaluation.matches import match

    truth = read_ground_truth(folder / "gt.json")
    matches = match(truth, read_detections(folder / "dt.json", truth))
    sampled = bootstrap_ap(matches, image_samples(matches.images, 1000))
    print({"std of AP": round(float(np.nanmean(sampled, axis=1).std()), 6)}, end=" ")


def report(folder: Path) -> None:
    from cissod_bench.leaderboard.report import make_report, write_report

    write_report(make_report([folder]), folder / "out")


def make_records(folder: Path, splits: int) -> None:
    """1,000 records of four tasks, with so many splits of each."""
    from cissod_bench.evaluation import METRICS
    from cissod_bench.results.environment import describe_environment
    from cissod_bench.results.record import Group, Result, write_result
    from cissod_bench.results.run_key import RunKey
    from cissod_bench.version import __version__

    rng, environment = np.random.default_rng(0), describe_environment()
    for index in range(1000):
        key = RunKey(
            task=f"task-{index % 4}", protocol=1, train_seed=index // 200,
            split_digest=f"{index // 4 % splits:064x}", split_seed=index // 4 % splits,
            method=f"method-{index // 4 % 50 // splits}", method_options={}, schedule="short", iterations=800,
            shortened=False, detector="small", evaluator="hotcoco", max_detections=100, method_version=2,
            resolved_options={"theta": None, "threshold": 0.1},
        )  # fmt: skip
        metrics = {group: {name: float(rng.random()) for name in METRICS} for group in ("all", "maj", "min")}
        record = Result(
            key=key, metrics=metrics, groups={group: Group(40, 0) for group in metrics}, package_version=__version__,
            environment=environment, annotations_digest="a" * 64, label_fraction=0.1,
            data={"train_images": 1500, "labeled_images": 150}, split_options={"fraction": 0.1, "floor": 10},
        )  # fmt: skip
        write_result(folder / str(index) / "result.json", record)


def measured(name: str, folder: Path, *arguments: str) -> float:
    """Run one case in a process of its own and print its time and peak memory."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--case", str(folder), *arguments]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - started
    print(f"{name:<44} {seconds:8.1f} s  {shown.strip()}", flush=True)
    return seconds


def case(folder: Path, what: str, *options: str) -> None:
    started, processor = time.perf_counter(), time.process_time()
    if what == "report":
        report(folder)
    elif what == "bootstrap":
        bootstrap(folder)
    elif what == "alone":
        pycocotools_alone(folder)
    else:
        score(folder, what, "lvis" in options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = f"{time.perf_counter() - started:.1f} s, {time.process_time() - processor:.1f} s of a processor"
    print(f"inside {seconds}, peak {peak:.2f} GiB")


def main(chosen: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen or [*SIZES, "bootstrap", "report"]:
            data = "coco" if name == "bootstrap" else name
            folder = Path(temporary) / data
            if not folder.exists():
                folder.mkdir()
                if name != "report":
                    make_data(folder, *SIZES[data], lvis=name == "lvis")
            if name == "report":
                for splits in (1, 25):
                    make_records(folder / str(splits), splits)
                    measured(f"report over 1,000 records, {4 * splits} splits", folder / str(splits), "report")
            elif name == "bootstrap":
                measured("bootstrap, 1,000 samples of 5,000 images", folder, "bootstrap")
            elif name == "coco":
                fast = measured("5,000 images, 500,000 detections: hotcoco", folder, "hotcoco")
                measured("the same, --evaluator pycocotools", folder, "pycocotools")
                slow = measured("the same, pycocotools by its manual", folder, "alone")
                print(f"  hotcoco is {slow / fast:.0f} times as fast, reading and start of the process included")
            else:
                measured(f"{name}: {SIZES[name][0]:,} images, {SIZES[name][3]:,} detections", folder, "hotcoco", name)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        case(Path(sys.argv[2]), *sys.argv[3:])
    else:
        main(sys.argv[1:])
