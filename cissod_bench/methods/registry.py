"""The methods, one line each. A new method is a file in `baselines/` (or here) and a line in this table."""

from cissod_bench.errors import unknown_name
from cissod_bench.methods.method import Method

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="soft-teacher",
            family="SSOD",
            title="Soft Teacher: the frame itself",
            citation="Xu et al., End-to-End Semi-Supervised Object Detection with Soft Teacher, ICCV 2021",
            module="cissod_bench.baselines.soft_teacher",
            paper_name="Soft teacher",
        ),
        Method(
            name="rfs",
            family="LTOD",
            title="Repeat factor sampling of labelled images on Soft Teacher",
            citation="Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, CVPR 2019",
            module="cissod_bench.baselines.rfs",
            paper_name="RFS",
        ),
    )
}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UserError: no such method.
    """
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]
