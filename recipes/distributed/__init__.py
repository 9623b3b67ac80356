"""Processes, devices, process groups, seeds and the measured peak of the job."""
