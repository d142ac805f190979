"""Names that method files of version 0.1 import, so that their copies in run folders still load.

For new runs `run --method` requires the names of `base.py`, see `user.py`.
"""

from cissod_bench.methods.base import Context as Setting
from cissod_bench.methods.base import Method, fixed_threshold, repeat_threshold
from cissod_bench.methods.base import MethodConfig as Parts

__all__ = ["Method", "Parts", "Setting", "fixed_threshold", "repeat_threshold"]
