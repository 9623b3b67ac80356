"""The probe stage: what every pair of ranks gets out of the network between them, before a job relies on it."""
