"""Measure the speed of the library, for the tables of docs/understand/performance.md."""
