"""`cissod-bench predict`: run a trained detector on images."""

from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.cli.console import say
from cissod_bench.cli.options import Json, Trust
from cissod_bench.words import counted


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Image, or folder of images (searched recursively).")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the detections.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="One of the run's checkpoints. Default: the newest.", show_default=False)
    ] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Drop detections below this score.")] = 0.0,
    draw: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Draw detections with at least this score, such as 0.5, into pictures."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Detect objects with the teacher of a run.

    Writes `detections.json` (COCO's results format plus file and class names), `images.json` (what the ids
    stand for) and, with --draw, `pictures/`, where each picture has the name of its image.
    """
    from cissod_bench import api
    from cissod_bench.io import canonical_json

    predictor = api.load_detector(run, checkpoint, device, trust=trust)
    seen, found = predictor.predict_images(images, out, min_score=min_score, drawn=draw)
    if as_json:
        facts = {"out": str(out), "images": seen, "detections": found, "checkpoint": str(predictor.checkpoint)}
        say(canonical_json(facts))
    else:
        say(
            f"{counted(found, 'detection')} on {counted(seen, 'image')} with {predictor.checkpoint}; they are in {out}."
        )
