"""COCO annotations as columns: reading, checking, caching."""
