"""Where the components of every method come from: its own package, the framework, or mmdet and its relatives."""

from collections.abc import Iterator
from typing import Any

import pytest
from mmdet.registry import HOOKS, MODELS
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.utils import get_object_from_string

from cissod_bench.methods.base import Method
from cissod_bench.methods.registry import METHODS
from cissod_bench.ssod.component import component
from tests.methods.plain import config_of

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "crest": [{"align": True, "ignore_unkept": True, "reinit": True}],
    "gbs": [{"threshold": policy} for policy in ("fixed", "score", "gradient", "labelmatch")],
    "seesaw": [{"normalized": False}],
}
"""Options that bring in other components than the defaults."""
SHARED = ("cissod_bench.ssod.", "cissod_bench.methods.rank_threshold.", "mmdet.", "mmcv.", "mmengine.", "torch.")


def types(value: Any) -> Iterator[str]:
    """Every `type` in a configuration."""
    if isinstance(value, dict):
        if "type" in value:
            yield value["type"]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from types(inner)


def configured(method: Method, **options: Any) -> dict[str, Any]:
    config = config_of(method, **options)
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_component_is_of_the_methods_package_the_framework_or_mmdet(method: Method) -> None:
    file, package = method.module, method.module.rpartition(".")[0]
    own = f"{file}." if package == "cissod_bench.baselines" else f"{package}."
    found = [name for options in ({}, *OPTIONS.get(method.name, [])) for name in types(configured(method, **options))]
    assert found
    for name in found:
        part = MODELS.get(name) or HOOKS.get(name) or WEIGHT_INITIALIZERS.get(name)
        assert part is not None, f"{name} cannot be imported"
        where = f"{part.__module__}.{part.__qualname__}"
        assert where.startswith((own, *SHARED)), where
        assert "." in name or not where.startswith("cissod_bench"), f"{name}: ours, but named without its path"


def test_eight_methods_have_components_of_their_own() -> None:
    """So the rule above is about something."""
    with_own = {
        name
        for name, method in METHODS.items()
        for found in types(configured(method))
        if found.startswith(("cissod_bench.baselines.", "cissod_bench.methods.gbs."))
    }
    assert with_own == {"c2am", "crest", "daso", "defrcn", "eqlv2", "focal", "gbs", "seesaw"}


def test_a_component_leads_back_to_its_class() -> None:
    written = component(TestedPart, size=3)
    assert written == {"type": f"{__name__}.TestedPart", "size": 3}
    assert get_object_from_string(written["type"]) is TestedPart


def test_what_cannot_be_imported_is_refused() -> None:
    class Inner:
        pass

    with pytest.raises(ValueError, match=r"Inner of .*test_components has no importable path"):
        component(Inner)
    with pytest.raises(ValueError, match="no importable path"):
        component(lambda: None)


class TestedPart:
    """Something to name."""

    __test__ = False
