"""Grids against the combinations that they stand for."""

import itertools
from pathlib import Path

import pytest

from cissod_bench.cli.sweep import read
from cissod_bench.errors import UserError
from cissod_bench.launch.arguments import run_arguments
from cissod_bench.launch.grid import Grid, expand, spec_of, varied
from cissod_bench.launch.status import Member
from cissod_bench.launch.sweep import grid_members

FILE = """
out = "elsewhere"
[run]
task = "shapes"
data-root = "here"
threads = 2
[[grid]]
method = ["soft-teacher", "gbs"]
seed = [0, 1, 2]
[[grid]]
ablation = ["gbr", "gbt"]
option = [["rho=0.1", "beta=1"], "rho=0.2"]
"""


def members(grid: Grid, root: Path) -> list[Member]:
    return grid_members(grid.runs, root)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(FILE)
    return path


def test_a_file_is_every_combination_of_each_of_its_tables(file: Path) -> None:
    grid = read([str(file)], {})
    assert grid.out == Path("elsewhere")
    first = [(run.get("method"), run.get("seed")) for run in grid.runs[:6]]
    assert first == list(itertools.product(["soft-teacher", "gbs"], [0, 1, 2]))
    second = [(run["ablation"], run["option"]) for run in grid.runs[6:]]
    assert second == list(itertools.product(["gbr", "gbt"], [["rho=0.1", "beta=1"], "rho=0.2"]))
    expected = "--task shapes --ablation gbr --option rho=0.1 --option beta=1 --data-root here --threads 2"
    assert run_arguments(spec_of(grid.runs[6])) == expected.split()


def test_folders_are_those_of_run(file: Path) -> None:
    found = members(read([str(file)], {}), Path("runs"))
    assert [member.name for member in found[:2]] == [
        "shapes/soft-teacher-paper-seed-0",
        "shapes/soft-teacher-paper-seed-1",
    ]
    assert found[6].name == "shapes/gbr-beta=1-rho=0.1-paper-seed-0"
    assert len({member.out for member in found}) == len(found) == 10


def test_options_make_a_grid_too_and_the_rest_is_for_all_runs() -> None:
    axes = {"task": ["shapes"], "method": ["rfs"], "ablation": ["gbr"], "seed": [3, 4]}
    grid = read(["--threads", "1", "-o", "theta=0.8", "--iterations", "5"], axes)
    assert [(run.get("method"), run.get("ablation"), run["seed"]) for run in grid.runs] == [
        ("rfs", None, 3),
        ("rfs", None, 4),
        (None, "gbr", 3),
        (None, "gbr", 4),
    ]
    names = [member.name for member in members(grid, Path("runs"))]
    assert names[0] == "shapes/rfs-theta=0.8-5-seed-3"


def test_what_is_varied_beyond_the_usual_is_in_the_name() -> None:
    axes = {
        "task": ["shapes"],
        "method": ["rfs"],
        "detector": ["r18-small-pretrained", "r18-medium"],
        "precision": ["tf32", "bf16"],
    }
    grid = Grid(None, expand("test", {}, [axes]))
    assert varied(grid.runs) == ("detector", "precision")
    assert [member.name for member in members(grid, Path("runs"))] == [
        "shapes/rfs-paper-seed-0-precision=tf32",  # of the task's own detector
        "shapes/rfs-paper-seed-0-precision=bf16",
        "shapes/rfs-r18-medium-paper-seed-0-precision=tf32",
        "shapes/rfs-r18-medium-paper-seed-0-precision=bf16",
    ]


def test_options_given_twice_are_beside_each_other_and_others_replaced() -> None:
    (run,) = expand("test", {"option": "a=1", "seed": 1}, [{"option": ["b=2"], "seed": 2}])
    assert run == {"option": ["a=1", "b=2"], "seed": 2}
    (run,) = expand("test", {"method": "rfs"}, [{"ablation": "gbr"}])
    assert run == {"ablation": "gbr"}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("[run]", "[rnu]"), r"Unknown entry 'rnu'. Did you mean 'run'\?"),
        (("seed =", "sed ="), r"grid.toml: Unknown option of run 'sed'. Did you mean 'seed'\?"),
        (("threads = 2", "out = 'x'"), "Unknown option of run 'out'"),
        (("[0, 1, 2]", "[]"), "seed has an empty list of values"),
        (("[0, 1, 2]", "[-1]"), "seed=-1: Expected `int` >= 0"),
        (("[0, 1, 2]", "[1, true"), "is not a TOML file"),
        (('"gbs"]', '"gbz"]'), r"Unknown method 'gbz'. Did you mean 'gbs'\?"),
        (('"shapes"', '"shpes"'), r"Unknown task 'shpes'. Did you mean 'shapes'\?"),
        (('["gbr", "gbt"]', '["gbrr"]'), "Unknown ablation 'gbrr'"),
    ],
)
def test_mistakes_in_a_file_are_named(file: Path, change: tuple[str, str], error: str) -> None:
    file.write_text(FILE.replace(*change))
    with pytest.raises(UserError, match=error):
        members(read([str(file)], {}), Path("runs"))


def test_mistakes_on_the_command_line_are_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no sweep file .*nowhere.toml"):
        read([str(tmp_path / "nowhere.toml")], {})
    with pytest.raises(UserError, match="Remove --seed"):
        read([str(file)], {"seed": [1]})
    with pytest.raises(UserError, match=r"sweep: No such option.*--thraeds.*--threads"):
        read(["--thraeds", "1"], {"method": ["gbs"]})
    with pytest.raises(UserError, match=r"--plan is for a single run\. Leave it out; --dry-run"):
        read(["--plan"], {"method": ["gbs"]})
    with pytest.raises(UserError, match="--export-config is for a single run"):
        read(["--export-config", "config.py"], {"method": ["gbs"]})
    with pytest.raises(UserError, match=r"^--method gbs: the task is missing. Give --task"):
        members(read([], {"method": ["gbs"]}), tmp_path)
    with pytest.raises(UserError, match=r"^sweep: the task is missing. Give --task"):
        members(read([], {}), tmp_path)
    axes = {"task": ["shapes"], "method": ["rfs"], "backbone": ["a/w v.pth", "a/w_v.pth"]}
    twins = Grid(None, expand("test", {}, [axes]))
    with pytest.raises(UserError, match="Two runs would share the folder"):
        members(twins, tmp_path)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["splits/shapes", "splits/shapes-lt"], ["shapes", "shapes-lt"]),
        (["lt/fraction-0.05", "lt/fraction-0.1"], ["fraction-0.05", "fraction-0.1"]),
        (["a/w.pth", "a/v2.5.pth"], ["w", "v2.5"]),
        (["a/w.pth", "b/w.pth"], ["a_w.pth", "b_w.pth"]),
        (["x/a/w.pth", "y/a/w.pth", "w"], ["x_a_w.pth", "y_a_w.pth", "w"]),
        (["w.pth", "w.safetensors"], ["w.pth", "w.safetensors"]),
    ],
)
def test_paths_in_names_of_folders_are_as_long_as_it_takes(values: list[str], names: list[str], tmp_path: Path) -> None:
    runs = expand("test", {}, [{"task": ["shapes"], "method": ["rfs"], "backbone": values}])
    found = [member.name for member in grid_members(runs, tmp_path)]
    assert found == [f"shapes/rfs-paper-seed-0-backbone={name}" for name in names]


def test_options_that_run_repeats_are_gathered_in_the_spec() -> None:
    given = {"task": "shapes", "method": "gbs", "option": "beta=0.7", "settings": ["a.b=0.5"], "set": ["c=x"]}
    spec = spec_of({**given, "logger": ["none"], "gpus": 2, "compile": True})
    assert spec.options == {"beta": "0.7"}
    assert spec.overrides == {"a.b": 0.5, "c": "x"}
    assert (spec.loggers, spec.processes, spec.compile) == (("none",), 2, True)
    with pytest.raises(UserError, match="--set c is given twice"):
        spec_of({**given, "settings": ["c=1"]})
