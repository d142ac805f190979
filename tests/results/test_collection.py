"""Records as a pandas table, against the records."""

import math
from pathlib import Path

import pandas

from cissod_bench.evaluation import METRICS
from cissod_bench.results.collection import collect_results
from cissod_bench.results.record import write_result
from cissod_bench.results.run_folder import RunFolder
from tests.leaderboard.runs import make_record


def test_a_table_has_a_row_for_each_run_and_group(tmp_path: Path) -> None:
    records = {f"{method}-{seed}": make_record({"all": 0.1 * (seed + 1), "min": 0.05}, method=method, train_seed=seed)
               for method in ("gbs", "rfs") for seed in (0, 1)}  # fmt: skip
    records["gbs-0"].metrics["min"]["APs"] = None
    for name, record in records.items():
        write_result(RunFolder(tmp_path / name).record, record)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text("{")
    found = collect_results([tmp_path])
    assert len(found) == 4
    assert [record.key.method for record in found] == ["gbs", "gbs", "rfs", "rfs"]
    assert [entry.path.parent.name for entry in found.rejected] == ["other"]

    frame = found.to_frame()
    assert len(frame) == 8
    assert {"path", "group", "task", "method", "method_options", "train_seed", *METRICS} <= set(frame.columns)
    for _, row in frame.iterrows():
        record = records[Path(row["path"]).name]
        assert (row["method"], row["train_seed"]) == (record.key.method, record.key.train_seed)
        expected = record.metrics[row["group"]]
        for metric in METRICS:
            assert row[metric] == expected[metric] or (math.isnan(row[metric]) and expected[metric] is None)
    means = frame[frame["group"] == "all"].groupby("method")["AP"].mean()
    pandas.testing.assert_series_equal(means, pandas.Series({"gbs": 0.15, "rfs": 0.15}), check_names=False)
