"""The stage that trains a language model from its first weights."""
