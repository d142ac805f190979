"""Importing anything from here makes mmdet importable where mmcv has no compiled operators."""

from cissod_bench import operators

operators.install()
