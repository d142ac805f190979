"""The script that does what the Dockerfile says knows each of its instructions; the steps are run by hand."""

import runpy
from pathlib import Path

HERE = Path(__file__).parents[2]


def test_every_instruction_of_the_dockerfile_is_one_the_script_does() -> None:
    script = runpy.run_path(str(HERE / "benchmarks" / "container.py"))
    steps = script["steps_of"]((HERE / "Dockerfile").read_text())
    # FROM is the root, CMD gives way to the command that is asked for, apt-get's step is part of the root.
    assert {name for name, _ in steps} <= {"FROM", "RUN", "WORKDIR", "COPY", "ARG", "ENV", "USER", "CMD"}
    commands = [rest for name, rest in steps if name == "RUN"]
    assert [rest.split()[0] for rest in commands] == ["apt-get", "PIP_NO_CACHE_DIR=1"]
    assert commands[1].endswith("compileall -q cissod_bench"), "a line that goes on belongs to the step"
