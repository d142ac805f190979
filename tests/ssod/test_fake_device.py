"""What a step would make the host of a GPU do, on a device that is not there."""

import json
import subprocess
import sys
from pathlib import Path

import cissod_bench.methods

ENDS_AFTER_BACKWARD = """
import sys
import torch
from cissod_bench.ssod import fake_device
sys.setswitchinterval(100)  # seconds: no other thread comes to its turn before the end
with fake_device.counting():
    weight = fake_device.FakeTensor(torch.randn(8, 8), requires_grad=True)
    values = weight
    for _ in range(300):
        values = (values @ weight).tanh()
    loss = values.sum()
    del values
    loss.backward()
    del loss
"""
OWN = Path(cissod_bench.methods.__file__).parents[1]


def test_the_framework_and_every_method_keep_their_data_on_the_device_and_do_not_wait_for_it() -> None:
    """An operator on tensors of both sides is an error there, so this also says that no data is left on the host."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.ssod.waits"], capture_output=True, text=True, cwd=OWN.parent, timeout=600
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    stock, framework = found.pop("stock"), found["framework"]
    assert sum(framework["waits"].values()) < sum(stock["waits"].values()) / 4
    assert sum(framework["waits"].values()) <= 28, "of them eight for NMS, four once for the anchors"
    assert framework["launches"] < 0.55 * stock["launches"]
    assert framework["copies"] < 0.6 * stock["copies"]
    ours = {f"{path.parent.name}/{path.name}" for path in OWN.rglob("*.py")}
    for name, counts in found.items():
        own = {place: times for place, times in counts["waits"].items() if place.split(", ")[1].split(":")[0] in ours}
        assert own, "the framework's own waits are counted"
        assert {place.split(", ")[1].split(":")[0] for place in own} <= {
            "model/views.py",  # sizes of selections: pseudo labels, and samples of the RPN and of RoIs, by image
            "model/roi_extractor.py",  # the number of RoIs on each level
            "model/nms.py",  # whether a round of non-maximum suppression still changed something
            "model/rpn_head.py",  # the number of proposals of each image
            "model/roi_head.py",  # the number of samples and of detections of each image
            *(["baselines/daso.py"] if name == "daso" else []),  # which labelled boxes enter the queues
        }, name
        assert sum(own.values()) <= 25, (name, own)


def test_a_process_that_ends_right_after_a_backward_pass_ends_well() -> None:
    run = subprocess.run([sys.executable, "-c", ENDS_AFTER_BACKWARD], capture_output=True, text=True, cwd=OWN.parent)
    assert run.returncode == 0, run.stderr[-2000:]
