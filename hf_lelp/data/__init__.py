"""Rows become inputs, labels become class indices, alike for teacher and student."""
