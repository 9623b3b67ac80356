"""Pretraining measured against a plain PyTorch loop and Hugging Face Trainer, and against itself in other layouts."""
