"""One file a backend: submit, wait, stop, status and logs, each blind to what the job is."""
