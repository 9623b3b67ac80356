"""Crawl records in, clean deduplicated tokenised shards with a dataset card out (datatrove blocks and executor)."""
