"""The embedded data sets, rendered from a seed."""
