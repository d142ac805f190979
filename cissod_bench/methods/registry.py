"""The methods, one entry each. A new method is a file or a folder in `baselines/` and an entry in this table.

A user's own method is a file anywhere, or an entry point of an installed package (`user.py`).

A method's version is raised when its results change. What the versions were:

* all methods, 2: anchors and RoIs are sampled by another random selection (`ssod/model/sampling.py`), so the same seed
  trains another detector. The sums of gbs are products with one-hot matrices, which round differently, and its mean
  scores are the plain mean of a class's first 1,000 detections and a moving average only from there (`gbs/gbt.py`).
  Its classes never seen take no share in the softmax of the weights (`gbs/gradient_matrix.py`).
"""

import os
from pathlib import Path

from cissod_bench.errors import UserError, unknown_name
from cissod_bench.methods import user
from cissod_bench.methods.base import Method

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="supervised",
            family="supervised",
            title="Supervised training on the labelled images alone: the baseline without unlabelled data",
            citation="Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, "
            "NeurIPS 2015",
            module="cissod_bench.baselines.supervised",
        ),
        Method(
            name="full-labels",
            family="reference",
            title="Supervised training on all training labels: not semi-supervised, never ranked",
            citation="Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, "
            "NeurIPS 2015",
            module="cissod_bench.baselines.full_labels",
        ),
        Method(
            name="soft-teacher",
            family="SSOD",
            title="Soft Teacher, the framework itself",
            citation="Xu et al., End-to-End Semi-Supervised Object Detection with Soft Teacher, ICCV 2021",
            module="cissod_bench.baselines.soft_teacher",
            version=2,
            paper_name="Soft teacher",
        ),
        Method(
            name="rfs",
            family="LTOD",
            title="Repeat factor sampling of labelled images on Soft Teacher",
            citation="Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, CVPR 2019",
            module="cissod_bench.baselines.rfs",
            version=2,
            paper_name="RFS",
        ),
        Method(
            name="eqlv2",
            family="LTOD",
            title="EQLv2: gradients of positives and negatives equalised by class",
            citation="Tan et al., Equalization Loss v2, CVPR 2021",
            module="cissod_bench.baselines.eqlv2",
            version=2,
            paper_name="EqLv2",
        ),
        Method(
            name="c2am",
            family="LTOD",
            title="C2AM: cosine classifier with class-aware angular margins",
            citation="Wang et al., C2AM Loss: Chasing a Better Decision Boundary for Long-Tail Detection, CVPR 2022",
            module="cissod_bench.baselines.c2am",
            version=2,
            paper_name="C2AM",
        ),
        Method(
            name="seesaw",
            family="LTOD",
            title="Seesaw loss: competitors scaled by class counts and scores",
            citation="Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021",
            module="cissod_bench.baselines.seesaw",
            version=2,
        ),
        Method(
            name="focal",
            family="SSOD",
            title="Softmax focal loss",
            citation="Liu et al., Unbiased Teacher for Semi-Supervised Object Detection, ICLR 2021",
            module="cissod_bench.baselines.focal",
            version=2,
            paper_name="FL",
        ),
        Method(
            name="crest",
            family="CI-SSL",
            title="CReST: in generations, confident images join the labelled ones, rare classes first",
            citation="Wei et al., CReST: A Class-Rebalancing Self-Training Framework for Imbalanced Semi-Supervised "
            "Learning, CVPR 2021",
            module="cissod_bench.baselines.crest.crest",
            version=2,
            paper_name="CReST",
        ),
        Method(
            name="daso",
            family="CI-SSL",
            title="DASO: pseudo labels blended with similarities to class prototypes",
            citation="Oh et al., DASO: Distribution-Aware Semantics-Oriented Pseudo-Label, CVPR 2022",
            module="cissod_bench.baselines.daso",
            version=2,
            paper_name="DASO",
        ),
        Method(
            name="defrcn",
            family="FSOD",
            title="DeFRCN: decoupled gradients, majority classes first, then a balanced set",
            citation="Qiao et al., DeFRCN: Decoupled Faster R-CNN for Few-Shot Object Detection, ICCV 2021",
            module="cissod_bench.baselines.defrcn.defrcn",
            version=2,
            paper_name="DeFRCN",
        ),
        Method(
            name="labelmatch",
            family="SSOD",
            title="LabelMatch's thresholds by rank",
            citation="Chen et al., Label Matching Semi-Supervised Object Detection, CVPR 2022",
            module="cissod_bench.baselines.labelmatch",
            version=2,
        ),
        Method(
            name="gbs",
            family="CI-SSOD",
            title="Gradient-based sampling, the proposed method: GbR + GbT + CrS",
            citation="Li et al., Gradient-based Sampling for Class Imbalanced Semi-supervised Object Detection, "
            "ICCV 2023",
            module="cissod_bench.methods.gbs.method",
            version=2,
            paper_name="Ours",
        ),
    )
}


def get_method(name: str | os.PathLike[str]) -> Method:
    """The method of that name, built in or installed, or the one in the Python file at that path.

    Raises:
        UserError: no such method, or a user's own one that does not keep to the interface.
    """
    name = os.fspath(name)
    if name in METHODS:
        return METHODS[name]
    if name.endswith(".py"):
        method = user.load_file(Path(name))
        if method.name in METHODS:
            raise UserError(f"{name}: METHOD.name {method.name!r} is a built-in method's name. Choose another one.")
        return method
    installed = user.installed()
    if name in installed:
        return user.load_installed(installed[name])
    raise unknown_name("method", name, [*METHODS, *installed])
