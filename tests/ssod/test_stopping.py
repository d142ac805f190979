"""A process whose loader workers still live when Python exits must not wait for them for ever."""

import subprocess
import sys

SCRIPT = """
import multiprocessing, os, signal, sys, time
from cissod_bench.ssod.stopping import deaf_worker, stop_on_signals

def work():
    deaf_worker(0)
    ready.set()
    while True:
        time.sleep(0.05)

context = multiprocessing.get_context("fork")
ready = context.Event()
with stop_on_signals():
    worker = context.Process(target=work, daemon=True)  # as PyTorch's loaders start theirs
    worker.start()
    ready.wait()
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(0.5)
    assert worker.is_alive(), "deaf while the run heeds signals"
print("ends")
"""


def test_workers_obey_once_the_run_is_over() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr
