"""Run the steps of the Dockerfile in a bare root, for a machine on which no container engine runs.

    debootstrap --variant=minbase --include=make,python3,python3-venv bookworm ROOT
    python benchmarks/container.py ROOT -- make demo DEMO=/tmp/demo

ROOT stands for the base image and for what the step with apt-get adds. `COPY` copies the commit that is checked out.
Every other step runs as it stands in the Dockerfile, then the command after `--` as the Dockerfile's user, with the
Dockerfile's variables alone. It needs the right to call chroot. The exit code is that of the first step that fails.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]


def steps_of(dockerfile: str) -> list[tuple[str, str]]:
    """Instructions and what they are given, without comments; lines that end in a backslash go on."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())
    ]


def run_in(root: Path, user: str, variables: dict[str, str], command: str) -> None:
    """Run a shell command in the root; end with its exit code if that is not 0."""
    print(f"+ {command}", flush=True)
    start = ["chroot", f"--userspec={user}:{user}", str(root), "/usr/bin/env", "-i"]
    done = subprocess.run([*start, *(f"{name}={value}" for name, value in variables.items()), "sh", "-c", command])
    if done.returncode:
        sys.exit(done.returncode)


def copy_commit(folder: Path) -> None:
    """What the commit has that is checked out, as an engine copies a clean clone."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = subprocess.run(["git", "-C", str(SOURCE), "archive", "HEAD"], check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=archive, check=True)


def main() -> None:
    """Read the Dockerfile and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a bare root with Python 3.11 and make")
    parser.add_argument("command", nargs="+", help="what the container is to run")
    asked = parser.parse_args()
    folder, user = "/", "0"
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    for name, rest in steps_of((SOURCE / "Dockerfile").read_text()):
        if name == "WORKDIR":
            folder = rest
        elif name == "COPY":
            copy_commit(asked.root / folder.lstrip("/"))
        elif name in ("ARG", "ENV"):
            for pair in shlex.split(rest):
                key, _, value = pair.partition("=")
                variables[key] = value.replace("$PATH", variables["PATH"])
        elif name == "RUN" and not rest.startswith("apt-get"):
            run_in(asked.root, user, variables, f"cd {folder} && {rest}")
        elif name == "USER":
            user = rest
    run_in(asked.root, user, variables, f"cd {folder} && {shlex.join(asked.command)}")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("chroot needs root's rights; run this with sudo.")
    main()
