"""Side by side with a peer, alternating, in one run: a ratio with its spread, as one JSON line at the end."""
