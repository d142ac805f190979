"""`cissod-bench compare`: is the difference between two runs more than chance?"""

from pathlib import Path
from typing import Annotated

import typer

from cissod_bench.cli.console import print_table, resampling, say
from cissod_bench.cli.options import Json


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run folder.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Run folder to compare with RUN_A.")],
    annotations: Annotated[
        Path | None, typer.Option(help="Ground truth. Default: the file named in the record of RUN_A.")
    ] = None,
    samples: Annotated[int, typer.Option(min=10, help="Bootstrap samples.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    classes: Annotated[bool, typer.Option("--classes", help="Show every class as well.")] = False,
    as_json: Json = False,
) -> None:
    """Compare two runs per group and class, with intervals.

    The 95 % intervals are from a paired bootstrap over images. They cover the choice of validation images, not of
    training seeds; for those, train each method with several seeds and see `report`. Runs that are not comparable are
    refused.
    """
    from cissod_bench import api
    from cissod_bench.leaderboard.comparison import comparison_table
    from cissod_bench.leaderboard.writers import json_text

    found = api.compare(
        first,
        second,
        annotations=annotations,
        samples=samples,
        seed=seed,
        progress=iter if as_json else resampling,
    )
    if as_json:
        tables = [json_text(comparison_table(found, classes=each)).strip() for each in (False, True)]
        say(f'{{"groups": {tables[0]}, "classes": {tables[1]}}}')
        return
    print_table(comparison_table(found))
    if classes:
        print_table(comparison_table(found, classes=True))
