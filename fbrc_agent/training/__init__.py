"""Training runs: stages, checkpoints, logs, results."""
