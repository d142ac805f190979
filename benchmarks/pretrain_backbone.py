"""Train the small backbone that the embedded tasks start from, and write it into the package.

    python benchmarks/pretrain_backbone.py --work pretraining

A detector learns twelve shapes that are no classes of the embedded tasks (`synthetic/other_shapes.py`), from 3,000
labelled images; its backbone is kept, in half precision. One CPU thread takes about a quarter of an hour. Repeated, the
command continues where it was stopped; the same seed on the same machine gives the same bytes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from safetensors.torch import save_file

from cissod_bench.ssod.checkpoint_reading import load_checkpoint
from cissod_bench.synthetic.other_shapes import OTHER_SHAPES, generate

PACKAGED = Path(__file__).parents[1] / "cissod_bench" / "training" / "recipes" / "shapes_backbone.safetensors"
TASK = """
name = "other-shapes"
version = 1
[data]
train_annotations = "data/train.json"
train_images = "data/train"
val_annotations = "data/val.json"
val_images = "data/val"
[groups]
minority = ["{last}"]
[labeled]
fraction = 0.98
floor = 10
[training]
detector = "r18-small"
iterations = {iterations}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for images and the run")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--iterations", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=PACKAGED)
    options = parser.parse_args()
    work: Path = options.work
    if not (work / "data").exists():
        work.mkdir(parents=True, exist_ok=True)
        generate(work / "data", 0, options.images)
    task = work / "task.toml"
    task.write_text(TASK.format(last=OTHER_SHAPES.names[-1], iterations=options.iterations))
    program = [sys.executable, "-m", "cissod_bench.cli.main"]
    if not (work / "split").exists():
        subprocess.run([*program, "make-splits", "--task", task, "--out", work / "split", "--no-plot"], check=True)
    subprocess.run([*program, "run", "--task", task, "--split", work / "split", "--method", "supervised", "--out",
                    work / "run", "--threads", "1", "--evaluations", "4", "--logger", "none"], check=True)  # fmt: skip
    last = max((work / "run" / "checkpoints").glob("iter_*.pth"), key=lambda path: int(path.stem.split("_")[1]))
    state = load_checkpoint(last)["state_dict"]
    prefix = "teacher.backbone."
    weights = {name.removeprefix(prefix): value.half().contiguous() for name, value in state.items()
               if name.startswith(prefix)}  # fmt: skip
    save_file(weights, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, {len(weights)} tensors")


if __name__ == "__main__":
    main()
