"""Steps per second of stock mmdet `SoftTeacher` and of the framework, side by side in one process.

    python benchmarks/training.py                    on a GPU: R50-FPN, 1 + 4 images of 1333 x 800
                                                     on a CPU: the same with images of 320 x 192 (minutes)
    python benchmarks/training.py --compile --json figures.json

All variants have the same first weights and see the same batches of random images, in turn, block by block. Thresholds
are set so that each image has about ten pseudo labels. A step is everything but the loader: normalising and padding,
losses, backward, optimiser, moving average, and reading losses for the log (stock: in every step, as mmengine does; the
framework: every 50 steps).

A second table says where the time of a step goes, with the device waited for around each part, so that the parts are
slower than the whole. A third one counts what a step launches, copies and waits for, on a fake device (`counts.py`).
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope
from steps import PARTS, Variant, batch, first_weights, measure, split_up


def counts(detector: str, size: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Launches, copies and waits of a step, of stock and of the framework, counted by another process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "counts.json"
        script = Path(__file__).with_name("counts.py")
        command = [sys.executable, script, "--detector", detector, "--size", *map(str, size), "--json", file]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, dict[str, Any]] = json.loads(file.read_text())
    return found


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, the first column to the left."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--detector", default="r50-fpn")
    parser.add_argument("--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="of images in pixels")
    parser.add_argument("--blocks", type=int, help="timed blocks of each variant; default: 4 on a GPU, 3 on a CPU")
    parser.add_argument("--steps", type=int, help="steps of a block; default: 5 on a GPU, 1 on a CPU")
    parser.add_argument("--threads", type=int, help="of PyTorch on a CPU")
    parser.add_argument(
        "--precision", nargs="+", default=None, help="default: fp32, tf32, bf16, fp16 on a GPU, else fp32"
    )
    parser.add_argument("--compile", action="store_true", help="also with compiled backbone and neck")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    width, height = options.size or ((1333, 800) if on_gpu else (320, 192))
    precisions = options.precision or (["fp32", "tf32", "bf16", "fp16"] if on_gpu else ["fp32"])
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.disable(logging.INFO)
    init_default_scope("mmdet")
    batches = [batch(seed, width, height) for seed in range(4)]
    weights, thresholds = first_weights(options.detector, batches[0], options.device)
    common = (options.detector, weights, thresholds, options.device)
    variants = [Variant("stock, fp32", "SoftTeacher", *common)]
    variants += [Variant(f"framework, {each}", "TeacherStudent", *common, precision=each) for each in precisions]
    if options.compile:
        title = f"framework, {precisions[-1]}, compiled"
        variants.append(Variant(title, "TeacherStudent", *common, precision=precisions[-1], compile=True))
    measure(variants, batches, options.blocks or (4 if on_gpu else 3), options.steps or (5 if on_gpu else 1))
    parts = {variant.title: split_up(variant, batches) for variant in variants}
    figures = {variant.title: variant.figures() for variant in variants}
    counted = counts(options.detector, (320, 192))

    where = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.detector}, 1 + 4 images of {width} x {height}, {where}\n")
    stock = figures["stock, fp32"]["ms"]
    rows = [
        [title, f"{each['ms']:.0f}", f"{stock / each['ms']:.2f}", f"{each['peak_mib']:.0f}" if on_gpu else "–"]
        for title, each in figures.items()
    ]
    print(table(["", "ms a step (median)", "times stock", "peak MiB"], rows), end="\n\n")
    print(table(["ms of a step", *PARTS], [[title, *(f"{each[part]:.0f}" for part in PARTS)]
                                           for title, each in parts.items()]), end="\n\n")  # fmt: skip
    rows = [[title, *(str(each[name]) for name in ("launches", "copies", "waits"))] for title, each in counted.items()]
    print(table(["a step at 320 x 192", "launches", "copies", "host waits"], rows))
    if options.json:
        found = {"where": where, "detector": options.detector, "size": [width, height], "torch": torch.__version__,
                 "counts": counted, "steps": figures, "parts_ms": parts}  # fmt: skip
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
