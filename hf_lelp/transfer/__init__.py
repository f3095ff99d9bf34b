"""More rows for the teacher to speak about: windows, views, rows without labels."""
