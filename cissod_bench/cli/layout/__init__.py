"""How help and tables are laid out on a terminal."""
