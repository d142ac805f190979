"""Importing anything from here makes mmdet importable where mmcv has no compiled operators."""

from cissod_bench.ssod import mmcv_shim as operators

operators.install()
