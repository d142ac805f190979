"""The processes of a run: device and threads, ranks, and isolation from the rest of a process."""
