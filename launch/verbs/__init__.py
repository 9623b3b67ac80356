"""One file a verb of the `slipway` command."""
