"""One run: from what the user asks for to a trained and evaluated detector."""

from cissod_bench.ssod import mmcv_shim

mmcv_shim.install()
