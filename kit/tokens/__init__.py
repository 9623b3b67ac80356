"""Token shards and their dataset card: the seam between data preparation and training."""
