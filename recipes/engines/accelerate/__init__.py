"""The adapter for accelerate: any torch module, data-parallel."""
