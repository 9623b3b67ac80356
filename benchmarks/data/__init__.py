"""Data preparation measured against stock datatrove: speed, equal quality, and the quality of each part."""
