"""Processes to which the permissions of files apply, also where the tests run as root."""

import ctypes
import os


def without_privileges() -> None:
    """Let the rules of files hold for root too: it gives up to pass over them (Linux, `capabilities(7)`)."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "capabilities cannot be given up")
