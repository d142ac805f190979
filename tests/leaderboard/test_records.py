"""Records: what is written loads again, what is damaged is named, what may be compared is decided by the key."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cissod_bench.errors import UserError
from cissod_bench.evaluation import METRICS, evaluate
from cissod_bench.results import record as records
from cissod_bench.results.environment import describe_environment, git_state
from cissod_bench.results.run_key import RunKey, comparison_key, replicate_key
from tests.leaderboard.runs import make_record

STORED = Path(__file__).parent / "data"


def test_a_record_comes_back_and_has_stable_bytes(tmp_path):
    record = make_record(method_options={"beta": 0.5, "alpha": [1, 2]})
    records.write_result(tmp_path / "a" / "result.json", record)
    records.write_result(tmp_path / "b" / "result.json", record)
    assert records.load_result(tmp_path / "a" / "result.json") == record
    assert (tmp_path / "a" / "result.json").read_bytes() == (tmp_path / "b" / "result.json").read_bytes()


@pytest.mark.parametrize("path", sorted(STORED.glob("result_v*.json")), ids=lambda path: path.stem)
def test_stored_records_of_every_version_load(path):
    record = records.load_result(path)
    assert record.key.task == "coco-split1"
    assert record.metrics["min"]["AP"] == 0.0151
    assert record.groups["all"].without_ground_truth == 1


def test_every_schema_version_has_a_stored_record():
    versions = {json.loads(path.read_text())["schema_version"] for path in STORED.glob("result_v*.json")}
    assert versions == set(range(1, records.SCHEMA_VERSION + 1))


def changed(change) -> dict:
    content = json.loads((STORED / "result_v1.json").read_text())
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("schema_version"), "not a result of this program"),
        (lambda c: c.update(schema_version=99), "schema version 99"),
        (lambda c: c["key"].pop("split_digest"), r"split_digest.*\$\.key"),
        (lambda c: c["key"].update(split_digest=""), "split_digest"),
        (lambda c: c["key"].update(iterations="many"), r"\$\.key\.iterations"),
        (lambda c: c["key"].update(colour="red"), "colour"),
        (lambda c: c["metrics"].pop("all"), "no group 'all'"),
        (lambda c: c["metrics"].pop("min"), "groups"),
        (lambda c: c["metrics"]["min"].pop("AP"), "metrics of group 'min'"),
        (lambda c: c["metrics"]["min"].update(AP=1.5), r"1\.5"),
        (lambda c: c["metrics"]["min"].update(AP=-0.1), r"-0\.1"),
        (lambda c: c["metrics"]["min"].update(AP="high"), r"\$\.metrics"),
        (lambda c: c["metrics"]["all"].update(AP=0.99), "AP of group 'all' is not the mean over the classes"),
        (lambda c: c["key"].update(iterations=-5), "`key.iterations` is -5, expected at least 1"),
        (lambda c: c["key"].update(protocol=0), "`key.protocol` is 0, expected at least 1"),
        (lambda c: c["key"].update(max_detections=0), "`key.max_detections` is 0"),
        (lambda c: c["key"].update(batch=[0, 4]), r"`key.batch` is \[0, 4\]"),
        (lambda c: c["files"].update(config="../config.py"), "not inside"),
        (lambda c: c["files"].update(config="/etc/config.py"), "not inside"),
    ],
)
def test_a_record_that_breaks_the_schema_is_named(tmp_path, change, message):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(changed(change)))
    with pytest.raises(UserError, match=message) as caught:
        records.load_result(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"AP": 0.3}', '{"schema_version": NaN}'])
def test_damaged_and_foreign_files_are_named(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"result\.json"):
        records.load_result(path)


@pytest.mark.parametrize("value", [float("nan"), 2.0, float("inf")])
def test_a_record_that_would_not_load_is_not_written(tmp_path, value):
    with pytest.raises(UserError, match="AP"):
        records.write_result(tmp_path / "result.json", make_record({"all": value}))
    assert list(tmp_path.iterdir()) == []


def test_damaged_records_are_left_out_and_named(run_folder):
    good = run_folder("good")
    bad = run_folder("bad")
    (bad / "result.json").write_text("{")
    results, rejected = records.load_results([good.parent])
    assert [path.parent.name for path, _ in results] == ["good"]
    assert [entry.path.parent.name for entry in rejected] == ["bad"]
    assert "damaged" in rejected[0].reason
    with pytest.raises(UserError, match=r"No usable result\.json below .*bad.*damaged"):
        records.load_results([bad])


def test_found_once_in_order_of_path(run_folder, tmp_path):
    runs = [run_folder(name) for name in ("b/2", "a", "b/1")]
    found, closed = records.find_results([tmp_path, runs[0], runs[1] / "result.json"])
    assert not closed
    assert [path.parent.relative_to(tmp_path / "runs").as_posix() for path in found] == ["a", "b/1", "b/2"]
    with pytest.raises(UserError, match="no such folder"):
        records.find_results([tmp_path / "nowhere"])


def test_links_to_folders_of_runs_are_followed_once(run_folder, tmp_path):
    expected = sorted(run_folder(name) / "result.json" for name in ("a", "b/1"))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "elsewhere").symlink_to(tmp_path, target_is_directory=True)  # in a circle, too
    found, closed = records.find_results([tmp_path / "here"])
    assert (sorted(path.resolve() for path in found), closed) == (expected, [])
    assert len(records.find_results([tmp_path])[0]) == 2


OTHER = {
    "task": "shapes-lt", "protocol": 2, "split_digest": "e" * 64, "split_seed": 1, "schedule": "paper",
    "iterations": 900, "shortened": True, "detector": "r50-fpn", "evaluator": "pycocotools", "max_detections": 300,
    "rules": "lvis", "batch": (8, 32), "backbone": "f" * 64, "precision": "bf16", "padding": 128, "compile": True,
    "overrides": {"optim_wrapper.optimizer.lr": 0.02},
}  # fmt: skip


@pytest.mark.parametrize("field", msgspec.structs.fields(RunKey), ids=lambda field: field.name)
def test_every_field_of_the_key_decides_as_documented(field):
    """The method and its options make another row; the training seed alone makes a replicate; all else, a table.

    What the validation annotations are, tables know by their content; in how many batches a step was taken is the same
    to them.
    """
    other = {
        **OTHER, "method": "rfs", "method_options": {"t": 0.1}, "method_digest": "a" * 64, "train_seed": 1,
        "accumulate": 8, "validation_digest": "b" * 64, "detector_digest": "c" * 64, "method_version": 3,
        "resolved_options": {"t": 0.1},
    }[field.name]  # fmt: skip
    apart = {"train_seed", "validation_digest", "accumulate"}
    here, there = make_record().key, make_record(**{field.name: other}).key
    assert (replicate_key(here) == replicate_key(there)) == (field.name in apart)
    of_method = {"method", "method_options", "method_digest", "method_version", "resolved_options"}
    one_table = comparison_key(here) == comparison_key(there)
    assert one_table == (field.name in of_method | apart)


def test_a_record_is_made_from_an_evaluation(tmp_path):
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": np.float32(0.5)}]
    evaluation = evaluate(tmp_path / "gt.json", found, {"maj": ["a"], "min": ["b"]})
    record = records.make_result(make_record().key, evaluation, files={"per_class": "per_class.npz"})
    records.write_result(tmp_path / "result.json", record)
    back = records.load_result(tmp_path / "result.json")
    assert back.groups == {"all": records.Group(2, 1), "maj": records.Group(1, 0), "min": records.Group(1, 1)}
    assert back.metrics["all"]["AP"] == back.metrics["maj"]["AP"] == pytest.approx(1)
    assert back.metrics["min"] == dict.fromkeys(METRICS)
    with pytest.raises(ValueError, match="the evaluation used"):
        records.make_result(make_record(max_detections=300).key, evaluation)


def test_environment_and_git_state(tmp_path):
    assert {"python", "numpy", "hotcoco"} <= describe_environment().keys()
    assert git_state(tmp_path) is None
