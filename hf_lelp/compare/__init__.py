"""Methods and seeds, compared on your own data."""
