"""The tasks of the benchmark, and task files."""
