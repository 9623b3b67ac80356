"""Disk formats and arithmetic of deduplication: nothing here holds the corpus in memory."""
