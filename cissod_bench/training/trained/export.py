"""A run's result to publish: teacher weights and a plain mmdet configuration, with what they were made from.

::

    model.safetensors  weights of the teacher
    config.py          mmdet's configuration of the detector, its test pipeline and its classes
    bundle.json        task, split digest, method, options, scores by class, versions, digests of the other files
    README.md          how to load it
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmengine.config import ConfigDict
from safetensors import SafetensorError
from safetensors.torch import save_file

from cissod_bench.errors import UserError
from cissod_bench.evaluation.groups import load_evaluation
from cissod_bench.io import canonical_json, sha256_file, staged_folder, write_json, write_text
from cissod_bench.leaderboard.writers import markdown_text
from cissod_bench.results.record import Result
from cissod_bench.results.run_folder import RunFolder
from cissod_bench.ssod.component import component
from cissod_bench.ssod.data.damaged import LoadWholeImage
from cissod_bench.training.build_config import PlainConfig
from cissod_bench.training.trained.predict import Predictor, check_free, dictionaries_in, load_scored

_STOCK = {component(LoadWholeImage)["type"]: "LoadImageFromFile"}
"""Parts of this package -> parts of mmdet that do the same on an image that is whole."""

_README = """# {method} on {task}

AP {ap} on the task's validation images. Weights of the teacher after {iterations:,} iterations; what they were made
from, and the scores of every class, are in `bundle.json`.

```python
try:
    import mmcv._ext  # compiled operators
except ImportError:  # an mmcv without them: torchvision's take their place
    from cissod_bench.ssod import mmcv_shim

    mmcv_shim.install()
from mmdet.apis import inference_detector, init_detector
from safetensors.torch import load_file

model = init_detector("config.py", device="cpu")
model.load_state_dict(load_file("model.safetensors"))
model.dataset_meta = dict(model.cfg.test_dataloader.dataset.metainfo)
found = inference_detector(model, "image.jpg").pred_instances
```
{needs}"""


def export_bundle(run: Path, out: Path, *, trust: bool = False) -> tuple[Path, list[str]]:
    """Write a bundle.

    Args:
        run: folder of the finished run.
        out: folder for the bundle.
        trust: as of `load_predictor`.

    Returns:
        The checkpoint that the weights are from, and the parts of this package that the configuration needs; without
        any, mmdet alone loads the bundle.

    Raises:
        UserError: the run is not finished, its last checkpoint is missing or damaged, or `out` holds something or
            cannot be written.
    """
    check_free(out)
    record, predictor = scored(run, trust=trust)
    evaluation = load_evaluation(run / record.files["per_class"])
    scores = evaluation.per_class()
    state = {name: value.contiguous().clone() for name, value in predictor.detector.state_dict().items()}
    config, own = plain_config(predictor)
    if config["model"]["roi_head"]["bbox_head"]["loss_cls"]["type"] == "CrossEntropyLoss":
        state = {name: value for name, value in state.items() if ".loss_cls." not in name}
    # One entry: the writer puts several in another order every time.
    about = {"task": record.key.task, "split_digest": record.key.split_digest, "method": record.key.method}
    needs = f"\nThe configuration imports `cissod_bench`, which has {', '.join(own)}.\n" if own else ""
    ap = " / ".join(f"{100 * (row['AP'] or 0):.1f} ({group})" for group, row in record.metrics.items())
    text = _README.format(
        method=markdown_text(record.key.method),
        task=markdown_text(record.key.task),
        ap=markdown_text(ap),
        iterations=record.key.iterations,
        needs=needs,
    )
    with staged_folder(out) as folder:
        try:
            save_file(state, folder / "model.safetensors", metadata={"cissod-bench": canonical_json(about)})
        except SafetensorError as error:  # the writer has no OSError
            raise UserError(f"{out} cannot be written: {error}.") from error
        write_text(folder / "config.py", PlainConfig(config).pretty_text)
        write_json(
            folder / "bundle.json",
            {
                "key": msgspec.to_builtins(record.key),
                "metrics": record.metrics,
                "per_class": {
                    name: {metric: _number(values[index]) for metric, values in scores.items()}
                    for index, name in enumerate(evaluation.class_names)
                },
                "groups": {name: list(members) for name, members in evaluation.groups.items()},
                "categories": predictor.categories,
                "checkpoint": predictor.checkpoint.name,
                "needs": own,
                "environment": record.environment,
                "package_version": record.package_version,
                "files": {name: sha256_file(folder / name) for name in ("model.safetensors", "config.py")},
            },
        )
        write_text(folder / "README.md", text)
    return predictor.checkpoint, own


def scored(run: Path, *, trust: bool = False) -> tuple[Result, Predictor]:
    """The record of a finished run, and the teacher that its scores are of.

    Raises:
        UserError: the run is not finished, or its last checkpoint is missing or damaged.
    """
    folder = RunFolder(run)
    if not run.is_dir():
        raise UserError(f"{run}: no such folder. Give the folder of a finished run.")
    if not folder.finished:
        raise UserError(f"{run}: not finished, so there are no scores to publish. Run it to its end.")
    record = folder.result()
    return record, load_scored(folder, record, trust=trust)


def plain_config(predictor: Predictor) -> tuple[dict[str, Any], list[str]]:
    """A detector's configuration for mmdet, as plain as its inference allows, and the parts that are not mmdet's."""
    detector = predictor.config.model.detector.to_dict()
    detector["backbone"].pop("init_cfg", None)  # the weights are in the bundle
    head = predictor.detector.roi_head.bbox_head
    if not head.custom_cls_channels and not head.custom_activation:  # the loss decides nothing at test time
        detector["roi_head"]["bbox_head"]["loss_cls"] = {"type": "CrossEntropyLoss", "loss_weight": 1.0}
    pipeline = predictor.config.test_dataloader.dataset.pipeline
    dataset = {
        "type": "CocoDataset",
        "metainfo": {"classes": [category["name"] for category in predictor.categories]},
        "test_mode": True,
        "pipeline": ConfigDict(pipeline=pipeline).to_dict()["pipeline"],
    }
    parts = (detector, dataset["pipeline"])
    for part in _typed(parts):
        part["type"] = _STOCK.get(part["type"], part["type"])
    own = sorted({part["type"] for part in _typed(parts) if _is_own(part["type"])})
    config: dict[str, Any] = {"default_scope": "mmdet"}
    if own:
        config["custom_imports"] = predictor.config.custom_imports.to_dict()
    return {**config, "model": detector, "test_dataloader": {"dataset": dataset}}, own


def _typed(value: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries with a `type` below."""
    return (part for part in dictionaries_in(value) if isinstance(part.get("type"), str))


def _is_own(name: str) -> bool:
    found = [registry.get(name) for registry in (MODELS, TASK_UTILS, TRANSFORMS)]
    return any(part is not None and not part.__module__.startswith(("mm", "torch")) for part in found)


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
