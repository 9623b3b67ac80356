"""What runs on the accelerators: models, engines, the loop and the stages; the only room that imports torch."""
