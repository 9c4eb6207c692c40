"""Training: recurrent cells, stacks of them, tasks, data and checkpoints. PyTorch lives here."""
