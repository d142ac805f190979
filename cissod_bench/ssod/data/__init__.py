"""Labelled and unlabelled images: the data set, the sampler, damaged files."""
