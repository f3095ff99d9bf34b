"""What a run is prepared with: teacher's columns, student's inputs, automatic settings."""
