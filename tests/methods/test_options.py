"""Options out of range are refused when they are read, for every method of the registry."""

from dataclasses import replace
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from cissod_bench.errors import UserError
from cissod_bench.methods.base import Method
from cissod_bench.methods.options import describe_options
from cissod_bench.methods.registry import METHODS, get_method
from tests.methods.plain import CONTEXT


def takes_a_float(kind: Any) -> bool:
    return kind is float or any(takes_a_float(part) for part in get_args(kind))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_no_number_is_infinite_or_none_at_all(method: Method, value: str) -> None:
    hints = get_type_hints(type(method.options({})), include_extras=True)
    floats = [name for name, kind in hints.items() if takes_a_float(kind)]
    assert floats or not hints
    for name in floats:
        with pytest.raises(UserError, match=rf"Option of method '{method.name}': Expected .*{name}"):
            method.options({name: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("gamma", "-1"),
        ("beta", "1.5"),
        ("eta_g", "1"),  # an average that never moves
        ("eta_p", "1"),
        ("rho", "0.2"),
        ("generations", "0.5"),
        ("crs_gamma", "-0.1"),
        ("w_min", "0"),
        ("w_min", "2"),
        ("w_max", "0.5"),
        ("theta", "0.4"),
        ("theta_min", "0.3"),
        ("gbr_warmup", "2"),
    ],
)
def test_options_of_gbs_out_of_range(option: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"Option of method 'gbs': Expected .*{option}"):
        get_method("gbs").options({option: value})


def test_bounds_reach_the_parts_and_have_to_fit() -> None:
    gbs = get_method("gbs")
    parts = gbs.configure(CONTEXT, gbs.options({"w_min": 0.5, "w_max": 3, "theta_min": 0.6, "theta": 0.8}))
    assert parts.loss_cls is not None
    assert parts.loss_cls["bounds"] == (0.5, 3)
    assert parts.threshold["bounds"] == (0.6, 0.8)
    with pytest.raises(UserError, match=r"theta_min=0.85 is above theta=0.8"):
        gbs.configure(CONTEXT, gbs.options({"theta_min": 0.85, "theta": 0.8}))
    with pytest.raises(UserError, match=r"theta_min=0.95 is above theta=0.9"):
        gbs.configure(replace(CONTEXT, theta=0.9), gbs.options({"theta_min": 0.95}))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_every_option_is_documented_and_its_default_is_a_legal_value(method: Method) -> None:
    options = msgspec.structs.asdict(method.options({}))
    assert msgspec.structs.asdict(method.options(options)) == options
    described = describe_options(method)
    assert [option.name for option in described] == list(options)
    assert all(len(option.about) > 20 for option in described), [option.name for option in described]
