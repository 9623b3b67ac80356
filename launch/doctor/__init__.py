"""What is wrong with the hosts of a target, or with the network between two of them, before a job finds out."""
