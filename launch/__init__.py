"""From a recipe and a target to processes that run, and the `slipway` command that people type."""
