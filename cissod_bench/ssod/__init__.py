"""The semi-supervised framework: Soft Teacher with seams for the methods.

Importing anything from here makes mmdet importable where mmcv has no compiled operators.
"""

from cissod_bench.ssod import mmcv_shim

mmcv_shim.install()
