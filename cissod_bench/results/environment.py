"""What a run is made with: versions of Python and of the packages that matter, and the state of the source tree."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

_PACKAGES = (
    "hotcoco", "pycocotools", "lvis", "numpy", "torch", "torchvision",
    "onedl-mmdetection", "onedl-mmengine", "onedl-mmcv", "mmdet", "mmengine", "mmcv",
)  # fmt: skip


class Git(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """State of the source tree the run was made from."""

    commit: str
    dirty: bool


def describe_environment() -> dict[str, str]:
    """Versions of Python, the system and the packages that matter, without importing them."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> Git | None:
    """Commit of the source tree that `folder` lies in, None where there is none or git is absent.

    A repository that does not track the folder's files is somebody else's, in which the package is installed.
    """
    try:
        if not _git(folder, "ls-files", "--", "."):
            return None
        commit = _git(folder, "rev-parse", "HEAD")
        return Git(commit=commit, dirty=bool(_git(folder, "status", "--porcelain", "--untracked-files=no")))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    # Without GIT_OPTIONAL_LOCKS=0 `status` locks the index, and the user's own git commands fail meanwhile.
    run = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    )
    return run.stdout.strip()
