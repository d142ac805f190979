"""What a method's file of version 0.1 imports, so that the copy of it in a run folder of that time still loads.

`run --method` asks for the names of `base.py` instead, see `user.py`.
"""

from cissod_bench.methods.base import Context as Setting
from cissod_bench.methods.base import Method, fixed_threshold, repeat_threshold
from cissod_bench.methods.base import MethodConfig as Parts

__all__ = ["Method", "Parts", "Setting", "fixed_threshold", "repeat_threshold"]
