"""Tables of boxes in checkpoints."""

import pickle

import numpy as np

from cissod_bench.ssod.data.pseudo_boxes import PromotedLabels, PseudoBoxes


def test_a_checkpoint_of_version_0_1_has_them_under_other_names() -> None:
    boxes = PseudoBoxes(np.array([3], "i4"), np.array([1], "i2"), np.ones((1, 4), "f4"), np.ones(1, "f4"))
    written = pickle.dumps(PromotedLabels(boxes, np.array([True])), protocol=2)
    for name, earlier in ((b"PseudoBoxes", b"FoundBoxes"), (b"PromotedLabels", b"JoiningLabels")):
        today = b"ccissod_bench.ssod.data.pseudo_boxes\n" + name
        assert today in written
        written = written.replace(today, b"ccissod_bench.methods.found_boxes\n" + earlier)
    read = pickle.loads(written)
    assert (type(read), type(read.boxes)) == (PromotedLabels, PseudoBoxes)
    assert read.of(3).ignored.tolist() == [True]
