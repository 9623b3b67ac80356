"""Figures of the reports, one module a subject, drawn with matplotlib as deterministic SVG text."""
