"""Proximal policy optimisation of a language model, in plain parts: rollouts, advantages, losses, engine."""
