"""Instruction data: conversations read from files, as token ids, in batches."""
