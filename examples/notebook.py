# The whole benchmark in one sitting, cell by cell: a split, two methods, their report, and detections.
# `python examples/notebook.py [ITERATIONS]`: a few minutes on two CPU cores with the default of 300.
import sys
from pathlib import Path

import cissod_bench as cb

iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 300

# %% The labelled and unlabelled images: the same bytes on every machine.
(made,) = cb.make_splits("shapes", "splits/shapes", seeds=0)
split = cb.load_split(made.folder)
print(f"{len(split.labeled_ids)} labelled and {len(split.unlabeled_ids)} unlabelled images, {split.groups['min']}")

# %% What a method can be told, with types, defaults and where they are from.
for option in cb.methods.describe("gbs")["options"][:3]:
    print(f"{option['name']}: {option['type']} = {option['default']}  {option['about']}")

# %% Two methods. Run again, it continues what was interrupted and leaves what is finished.
specs = {
    method: cb.RunSpec(task="shapes", method=method, split=made.folder, out=f"runs/{method}", iterations=iterations)
    for method in ("soft-teacher", "gbs")
}
print(cb.prepare(specs["gbs"]).plan()["learning_rate"])
runs = {method: cb.run(spec) for method, spec in specs.items()}

# %% The numbers, as a table of pandas and as a report with tables, plots and a page.
print(cb.load_results("runs").to_frame()[["method", "group", "AP", "AP50"]])
cb.report("runs", "report", overwrite=True)

# %% Is the difference more than chance?
for group, found in cb.compare(runs["soft-teacher"], runs["gbs"], samples=100).groups.items():
    print(group, found and f"{found[2].value:+.4f} in [{found[2].low:+.4f}, {found[2].high:+.4f}]")

# %% Detections on one image.
found = cb.load_detector(runs["gbs"]).predict(Path("splits/shapes/data/val/000001.png"))
print([(name, round(float(score), 2)) for name, score in zip(found.names[:5], found.scores[:5], strict=True)])
