"""The stage that trains with DeepSpeed: ZeRO over data-parallel ranks, from scratch or from an exported model."""
