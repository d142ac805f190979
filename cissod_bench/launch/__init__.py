"""Many runs as one declared grid, here or on a cluster. Imports neither torch nor mmdet."""
