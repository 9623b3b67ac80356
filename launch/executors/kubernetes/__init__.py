"""The Kubernetes backend: a job is an Indexed Job with a headless Service and a ConfigMap."""
