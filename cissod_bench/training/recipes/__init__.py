"""Recipes of a run: detectors with their optimisation, schedules, and scaling rules for other batches."""
