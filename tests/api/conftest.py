"""`shapes` with a few images."""

import functools
from pathlib import Path

import pytest

from cissod_bench.synthetic import shapes


@pytest.fixture(scope="session")
def few_shapes() -> functools.partial[None]:
    """What makes the images of `shapes`, only fewer of them."""
    return functools.partial(shapes.generate, train_images=120, val_images=4)


@pytest.fixture(scope="module")
def workplace(few_shapes: object, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """An empty working directory where `shapes` is small."""
    folder: Path = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "generate", few_shapes)
        patch.chdir(folder)
        yield folder
