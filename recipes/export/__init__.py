"""Checkpoints as Hugging Face directories, tensor by tensor, in a process of its own."""
