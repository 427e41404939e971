"""Data, the training loop, and the folder a run leaves."""
