"""Probabilities that can be trusted: one temperature, and a threshold for two classes."""
