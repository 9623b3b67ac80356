"""Talking to a model: the chat template, and answers to prompts."""
