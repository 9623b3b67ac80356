"""Tasks of lm-evaluation-harness that the demo measures its models with, and the script that makes them."""
