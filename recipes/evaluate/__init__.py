"""The stage that measures an exported model on held-out text."""
