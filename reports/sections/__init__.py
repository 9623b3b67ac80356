"""The sections of a report, one module a subject: each returns a Section, or None where its runs are absent."""
