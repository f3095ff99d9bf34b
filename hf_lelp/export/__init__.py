"""A student outside transformers."""
