"""What a run leaves behind: records, curves, diagnostics."""
