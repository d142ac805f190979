"""Data sets and backbone weights that others publish: where they are, whether they are here, and how they come here."""
