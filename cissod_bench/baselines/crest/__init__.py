"""CReST: self-training in generations."""
