"""Scores of answers: by rules and by reward models, for every stage that learns from a score or measures one."""
