"""Directions of each class, and subclass scores from them."""
