"""Turns finished run directories into reports: HTML with figures, Markdown, summary.json and CSV tables."""
