"""The demo's instruction set, and the script that makes it."""
