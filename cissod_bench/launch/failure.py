"""The reason of a failed run, from its log."""

from pathlib import Path


def reason_of(log: Path, exit_code: int) -> str:
    """Why a run failed: its error message, or else the last line it printed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith("Error: ")), lines[-1] if lines else "no output")
    how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    return f"{said.removeprefix('Error: ')} ({how}; {log})"
