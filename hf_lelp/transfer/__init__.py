"""Makes more rows for the teacher to speak about: windows of long texts, altered copies, rows without labels."""
