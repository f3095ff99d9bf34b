"""Measure the library: how fast it is, how reliable, and what its students gain."""
