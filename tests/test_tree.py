"""The shape of the package: no circles of imports, files and folders that can be taken in at a glance."""

from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

import cissod_bench

ROOT = Path(cissod_bench.__file__).parent
TESTS = Path(__file__).parent
MODULES, LINES = 20, 400
"""Most modules in a folder, and most lines in a file."""


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports inside functions count too: they are what hides a circle."""
    graph = grimp.build_graph("cissod_bench", exclude_type_checking_imports=True, cache_dir=None)
    imported = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(imported) > 200
    TopologicalSorter(imported).prepare()  # raises CycleError with the circle


def test_folders_and_files_stay_small() -> None:
    modules = [path for path in ROOT.rglob("*.py") if path.name != "__init__.py"]
    assert {
        str(folder): number for folder, number in Counter(p.parent for p in modules).items() if number > MODULES
    } == {}
    files = [*ROOT.rglob("*.py"), *(path for path in TESTS.rglob("*.py") if "stored" not in path.parts)]
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: lines for path, lines in lengths.items() if lines > LINES} == {}
