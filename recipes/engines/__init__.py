"""One adapter for each training engine; nothing outside an adapter knows its engine."""
