"""The adapter for megatron-core."""
