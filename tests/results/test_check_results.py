"""Published runs: what is packed passes the checks, and every change to it is found."""

import json
import lzma
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cissod_bench import api
from cissod_bench.cli.main import app
from cissod_bench.errors import UserError
from cissod_bench.evaluation.inputs import GroundTruth, read_ground_truth
from cissod_bench.results.published import write_index
from cissod_bench.results.environment import Git
from cissod_bench.results.record import load_result, write_result
from cissod_bench.results.submission import Submission, pack, read_submission
from cissod_bench.synthetic import shapes
from tests.results.published import STATED, make_run, publish, write


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    """The validation annotations of `shapes` as a split folder has them."""
    folder = tmp_path_factory.mktemp("truth") / "data"
    shapes.generate("shapes", folder, 0, train_images=1)
    return read_ground_truth(folder / "val.json")


@pytest.fixture(scope="module")
def made(truth: GroundTruth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a run."""
    return make_run(tmp_path_factory.mktemp("made") / "run", truth)


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A folder with one published run, `results/one`, and its index."""
    publish(tmp_path, "one", made)
    write_index(tmp_path / "results")
    return tmp_path


def problems(root: Path) -> list[str]:
    return api.check_results(root / "results", data_root=root).problems


def test_a_packed_run_passes_and_is_scored_again(root: Path, made: Path) -> None:
    found = api.check_results(root / "results")
    assert (found.problems, found.remarks, found.runs, found.rescored) == ([], [], ["one"], ["one"])
    folder = root / "results" / "one"
    assert lzma.decompress((folder / "detections.json.xz").read_bytes()) == (made / "detections.json").read_bytes()
    assert read_submission(folder) == STATED
    packed, original = load_result(folder / "result.json"), load_result(made / "result.json")
    assert (packed.key, packed.metrics) == (original.key, original.metrics)
    assert (packed.split, packed.annotations) == ("split", "val.json")
    assert str(made.parent) not in (folder / "result.json").read_text()


def test_the_same_run_packs_to_the_same_bytes(made: Path, tmp_path: Path) -> None:
    one, other = publish(tmp_path / "a", "one", made), publish(tmp_path / "b", "one", made)
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }
    index = write_index(tmp_path / "a" / "results").read_bytes()
    assert write_index(tmp_path / "b" / "results").read_bytes() == index
    assert json.loads(index)["runs"]["one"]["licence"] == "CC-BY-4.0"


def test_no_run_at_all_passes(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    write_index(tmp_path / "results")
    assert problems(tmp_path) == []


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the record."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / "result.json").read_text())
        change(content)
        (folder / "result.json").write_text(json.dumps(content))

    return apply


def without_one_detection(folder: Path) -> None:
    file = folder / "detections.json.xz"
    file.write_bytes(lzma.compress(json.dumps(json.loads(lzma.decompress(file.read_bytes()))[1:]).encode()))


def other_statement(old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = folder / "submission.toml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return apply


def nudged(content: dict[str, Any]) -> None:
    content["metrics"]["all"]["AP"] += 1e-9


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edited(lambda c: c["metrics"]["all"].update(AP=0.9)), "one: .*AP of group 'all' is not the mean"),
        (edited(lambda c: [each.update(AP=0.9) for each in c["metrics"].values()]), "one: .*gives 0.* as AP of group"),
        (edited(nudged), "one: per_class.npz gives other metrics than the record, in the last digits"),
        (without_one_detection, "one: detections.json.xz gives .* as AP of all classes, the record"),
        (edited(lambda c: c["key"].update(colour="red")), "one: result.json: not a valid result .*colour"),
        (edited(lambda c: c["key"].update(train_seed=None)), "one: the training seed is not known"),
        (edited(lambda c: c["key"].update(method_version=None)), "one: version and options of soft-teacher are not"),
        (edited(lambda c: c["key"].update(method_version=99)), "one: version 99 of soft-teacher, which is at version"),
        (edited(lambda c: c["key"].update(protocol=99)), "one: protocol 99 of shapes, which is at version"),
        (edited(lambda c: c["key"].update(split_digest="d")), "one: split_digest is 'd', not a SHA-256"),
        (edited(lambda c: c["key"].update(method_digest="a" * 64)), "one: method.py is missing"),
        (edited(lambda c: c["key"].update(method_options={"theta": 0.5})), "one: option theta is 0.5 among"),
        (edited(lambda c: c["key"].update(task="mine")), "one: mine is a custom task. Say where its data is"),
        (edited(lambda c: c["key"].update(max_detections=50)), "one: per_class.npz was made with .*100"),
        (edited(lambda c: c.update(annotations="/home/me/val.json")), "one: names a folder of a machine"),
        (edited(lambda c: c.update(annotations_digest="b" * 64)), "one: .*of another ground truth than the record"),
        (lambda folder: (folder / "detections.json.xz").unlink(), "one: detections.json.xz is missing"),
        (lambda folder: (folder / "per_class.npz").write_bytes(b"no"), "one: per_class.npz: not a file of per-class"),
        (lambda folder: (folder / "detections.json.xz").write_bytes(b"[{"), "one: detections.json.xz"),
        (lambda folder: (folder / "weights.pth").touch(), "one: weights.pth is not part of a published run"),
        (lambda folder: (folder / "method.py").touch(), "one: method.py is there, and the key names none"),
        (lambda folder: (folder.parent / "notes.txt").touch(), "notes.txt: not part of the published results"),
        (lambda folder: folder.rename(folder.with_name("a b")), "a b: not a folder whose name has letters"),
        (lambda folder: (folder.parent / "link").symlink_to(folder), "link: not a folder whose name has letters"),
        (other_statement("A. Name <a@name.org>", " "), "one: submission.toml: contact is empty"),
        (other_statement("CC-BY-4.0", "secret"), "one: submission.toml: licence must be one of .*, not 'secret'"),
        (other_statement('hardware = "2 CPU cores"\n', ""), "one: submission.toml: hardware is missing"),
        (lambda folder: (folder / "submission.toml").unlink(), "one: submission.toml is missing"),
    ],
)  # fmt: skip
def test_every_change_is_found(root: Path, change: Callable[[Path], None], expected: str) -> None:
    change(root / "results" / "one")
    with pytest.raises(AssertionError, match=expected):
        assert "\n".join(problems(root)) == ""


def test_the_index_has_to_be_that_of_the_folder(root: Path) -> None:
    (root / "results" / "one" / "submission.toml").write_text('contact = "B"\nlicence = "MIT"\nhardware = "one"\n')
    command = f"cissod-bench check-results {root / 'results'} --write-index"
    assert problems(root) == [f"index.json: missing or not that of the folder. Write it with `{command}`."]
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    assert problems(root) == []


def test_duplicates_are_found(root: Path, truth: GroundTruth, made: Path, tmp_path: Path) -> None:
    publish(root, "again", made)
    publish(root, "other-seed", make_run(tmp_path / "runs" / "other", truth, seed=1))
    with_key = msgspec.structs.replace(load_result(made / "result.json").key, train_seed=7)
    renamed = publish(root, "renamed", made)
    result = load_result(renamed / "result.json")
    write_result(renamed / "result.json", msgspec.structs.replace(result, key=with_key))
    write_index(root / "results")
    assert problems(root) == [
        "one: the same run as again: key and training seed are equal.",
        "one: has the detections of again, to the bit.",
        "renamed: has the detections of again, to the bit.",
    ]


def test_detectors_that_found_nothing_are_no_copies(truth: GroundTruth, tmp_path: Path) -> None:
    for seed in (0, 1):
        publish(tmp_path, f"run-{seed}", write(tmp_path / "runs" / f"run-{seed}", truth, [], seed=seed))
    write_index(tmp_path / "results")
    assert problems(tmp_path) == []


def test_a_split_has_one_set_of_groups(root: Path, truth: GroundTruth, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.results.published.MINORITY", truth.class_names[:6])
    publish(root, "swapped", make_run(tmp_path / "runs" / "run", truth, seed=1, method="gbs"))
    write_index(root / "results")
    assert problems(root) == [
        "swapped: group 'min' is not the minority of shapes.",
        "swapped: other class groups than one on the same split.",
    ]


def test_what_cannot_be_scored_is_said(truth: GroundTruth, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "run", truth, task="mine")
    with pytest.raises(UserError, match=r"mine is a custom task\. Say where its data is"):
        pack(run, tmp_path / "results" / "mine", STATED)
    publish(tmp_path, "mine", run, msgspec.structs.replace(STATED, data="https://example.org/data"))
    write_index(tmp_path / "results")
    found = api.check_results(tmp_path / "results")
    assert (found.problems, found.rescored) == ([], [])
    assert found.remarks == [
        "mine: AP is not scored again, since the ground truth (val.json) is not here. Give it with --annotations."
    ]
    given = api.check_results(tmp_path / "results", annotations=[truth.path])
    assert (given.problems, given.rescored, given.remarks) == ([], ["mine"], [])


def test_old_versions_and_uncommitted_changes_are_remarked(root: Path, made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in made.iterdir():
        (run / file.name).write_bytes(file.read_bytes())
    result = load_result(made / "result.json")
    key = msgspec.structs.replace(result.key, method_version=1, train_seed=3)
    changed = msgspec.structs.replace(result, key=key, git=Git(commit="c" * 40, dirty=True))
    write_result(run / "result.json", changed)
    packed = pack(run, tmp_path / "alone" / "results" / "old", STATED)
    assert packed.remarks == ("made from a source tree with uncommitted changes; tables mark it.",)
    write_index(tmp_path / "alone" / "results")
    found = api.check_results(tmp_path / "alone" / "results")
    assert found.problems == []
    assert found.remarks[0] == "old: made from a source tree with uncommitted changes; tables mark it."
    assert found.remarks[1].startswith("old: version 1 of soft-teacher, which is at version ")


@pytest.mark.parametrize(
    ("remove", "expected"),
    [
        ("result.json", "not a finished run"),
        ("detections.json", "has no detections file"),
        ("per_class.npz", "has no per-class file"),
    ],
)
def test_runs_that_cannot_be_scored_are_not_packed(made: Path, tmp_path: Path, remove: str, expected: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in made.iterdir():
        if file.name != remove:
            (run / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=expected):
        pack(run, tmp_path / "out", STATED)
    assert not (tmp_path / "out").exists()


def test_a_statement_is_checked_before_anything_is_written(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="licence must be one of CC0"):
        api.pack_submission(made, tmp_path / "out", contact="me", licence="none", hardware="a CPU")
    with pytest.raises(UserError, match="data must be an address"):
        api.pack_submission(made, tmp_path / "out", contact="me", licence="MIT", hardware="a CPU", data="my disk")
    assert not (tmp_path / "out").exists()


def test_any_text_survives_a_statement(made: Path, tmp_path: Path) -> None:
    stated = Submission(contact='Zoë \\ "x"', licence="MIT", hardware="a\tb\x7f😀", notes="'''\n\"\"\"\\u00e9")
    assert read_submission(pack(made, tmp_path / "out", stated).folder) == stated


def test_the_commands_pack_check_and_say_what_is_wrong(made: Path, tmp_path: Path) -> None:
    def program(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    packed = tmp_path / "results" / "one"
    stated = ("--contact", "me", "--hardware", "a CPU")
    assert program("submit", made, "--out", packed, *stated).exit_code == 0
    done = program("check-results", packed.parent, "--write-index")
    assert (done.exit_code, done.stdout.split(": ", 1)[1]) == (
        0,
        "runs 1, scored again to the bit 1, problems 0.\n",
    )
    without_one_detection(packed)
    done = program("check-results", packed.parent, "--json")
    assert done.exit_code == 1
    assert len(json.loads(done.stdout)["problems"]) == 2, "the arrays and the index"
