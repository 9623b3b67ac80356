"""What every stage that trains has in common: configuration, the steps with their checkpoints, sinks."""
