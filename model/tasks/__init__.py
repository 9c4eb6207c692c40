"""Tasks: what a stack of cells is trained to do."""
