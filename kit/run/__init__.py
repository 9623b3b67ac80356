"""The run directory: one folder a run, with its manifest, events, metrics, logs, checkpoints and artifacts."""
