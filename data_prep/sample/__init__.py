"""The embedded crawl sample: real documentation pages in a WARC, and the script that made it."""
