"""The embedded data sets, drawn from a seed."""
