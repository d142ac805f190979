"""Puts the published runs of `results/`, without their detections, into the wheel as `cissod_bench/published`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

LEFT_OUT = "detections.json.xz"
"""Most of the bytes; only re-scoring and the bootstrap need them, and they are in the repository."""


class BuildWithResults(build_py):
    """`build_py`, and a copy of the published runs. An editable install reads them where they are."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        for file in sorted(Path("results").rglob("*")):
            if file.is_file() and file.name != LEFT_OUT:
                target = Path(self.build_lib, "cissod_bench", "published", file.relative_to("results"))
                self.mkpath(str(target.parent))
                self.copy_file(str(file), str(target))


setup(cmdclass={"build_py": BuildWithResults})
