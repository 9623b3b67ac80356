"""What runs on the accelerators: models, engines, the training loop and the stages; the only room that imports torch."""
