"""Crawl files as records: where one begins, what survives damage, and which task reads which bytes."""
