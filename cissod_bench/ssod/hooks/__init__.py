"""What happens around the iterations: logs, checkpoints, diagnostics."""
