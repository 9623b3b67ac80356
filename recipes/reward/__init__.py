"""The reward stage: pairs of answers -> a model that scores answers as the pairs do."""
