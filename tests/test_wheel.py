"""What is published: the wheel has every file, its base works without PyTorch, and with the extra it trains."""

import os
import re
import subprocess
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_IN_BASE = "import importlib.util as u; print([m for m in ('torch', 'mmdet', 'cv2', 'scipy') if u.find_spec(m)])"

pytestmark = pytest.mark.slow


def output(*command: str | Path, folder: Path, code: int = 0) -> str:
    """What a command prints that runs without this checkout on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def tracked_files(folder: str) -> Sequence[str]:
    return output("git", "ls-files", folder, folder=ROOT).splitlines()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the sdist, built from the files that git knows, and of the wheel built from the sdist."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    output("git", "checkout-index", "--all", f"--prefix={source}/", folder=ROOT)
    venv.create(out / "env", with_pip=True)
    output(out / "env" / "bin" / "python", "-m", "pip", "install", "--quiet", "build", folder=out)
    output(out / "env" / "bin" / "python", "-m", "build", "--outdir", out, source, folder=out)
    return out


def test_the_wheel_has_every_file_of_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("cissod_bench/")}
    results = {f"cissod_bench/published/{Path(name).relative_to('results')}" for name in tracked_files("results")}
    published = {name for name in results if not name.endswith("/detections.json.xz")}
    assert packed == {*tracked_files("cissod_bench"), *published}
    assert "cissod_bench/published/index.json" in published < results


def test_a_package_index_shows_the_readme_without_a_dead_link(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    packed = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
    shown = packed.read(metadata).decode().partition("\n\n")[2]
    written = (ROOT / "README.md").read_text()
    web = re.compile(r"\]\((https://[^)]*)\)")
    assert re.findall(r"\]\(([^)]*)\)", shown) == web.findall(shown) == web.findall(written) != []
    words = re.compile(r"\[([^]]*)\]\((?!https:)(?!docs/images/)[^)]*\)").findall(written)
    assert [word for word in words if word not in shown] == []
    assert "![" in written
    assert "![" not in shown


def installed(wheel: str, folder: Path) -> tuple[Path, Path]:
    """Python and the program of a new environment with a wheel, whose name may end in an extra."""
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    output(*pip, wheel, folder=folder)
    if wheel.endswith("[train]"):  # docs/install.md
        output(*pip, "--force-reinstall", "--no-deps", "opencv-python-headless", folder=folder)
    return python, folder / "env" / "bin" / "cissod-bench"


def test_splits_scores_and_reports_without_pytorch(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    python, program = installed(str(wheel), tmp_path)
    assert output(python, "-c", NOT_IN_BASE, folder=tmp_path) == "[]\n"
    packages = tmp_path / "env" / "lib"
    assert sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) < 400 * 2**20

    output(program, "make-splits", "--task", "shapes", "--out", "split", folder=tmp_path)
    (tmp_path / "found.json").write_text('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]')
    scored = output(
        program, "eval", "--predictions", "found.json", "--annotations", "split/data/val.json", "--split", "split",
        "--method", "other", "--iterations", "6000", "--detector", "r18-small", "--out", "runs/other", folder=tmp_path,
    )  # fmt: skip
    assert "all" in scored
    assert "other" in output(program, "report", "runs", "--out", "report", folder=tmp_path)
    assert (tmp_path / "report" / "index.html").is_file()
    refused = output(program, "run", "--task", "shapes", "--method", "gbs", "--split", "split", folder=tmp_path, code=2)
    assert "This needs torch" in refused
    assert "Run `pip install 'cissod-bench[train]'`." in refused


@pytest.mark.slow
def test_training_from_the_wheel(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    _, program = installed(f"{wheel}[train]", tmp_path)
    output(program, "make-splits", "--task", "shapes", folder=tmp_path)
    told = output(
        program, "run", "--task", "shapes", "--method", "gbs", "--schedule", "smoke", "--threads", "1", folder=tmp_path
    )
    assert "Results are in" in told
    assert "gbs" in output(program, "report", "runs", "--out", "report", folder=tmp_path)
    assert "torchvision (no compiled mmcv)" in output(program, "doctor", folder=tmp_path)
