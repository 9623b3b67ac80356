"""Ground floor: configuration, layout, run directories, token shards, metrics. Imports no other room and no torch."""
