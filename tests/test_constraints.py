"""The two files of constraints are both ends of what `pyproject.toml` allows."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("train", "slurm", "dev")
REQUIREMENTS = [
    Requirement(text)
    for part in (PROJECT["dependencies"], *map(PROJECT["optional-dependencies"].get, EXTRAS))
    for text in part
]


def pins(name: str) -> dict[str, Version]:
    lines = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / name).read_text(), flags=re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in lines}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_lower_bounds_are_the_oldest_and_the_others_are_allowed(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    oldest, usual = pins("constraints-oldest.txt")[name], pins("constraints.txt")[name]
    assert usual in requirement.specifier
    for bound in requirement.specifier:
        if bound.operator == ">=":
            assert oldest == Version(bound.version)
