"""Training checkpoints that are complete or absent."""
