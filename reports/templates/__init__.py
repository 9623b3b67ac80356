"""The page of a report and its style: data files, read by reports/html.py."""
