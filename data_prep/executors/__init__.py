"""What runs the tasks of a step: processes of this machine, of several hosts, a Ray cluster, Slurm."""
