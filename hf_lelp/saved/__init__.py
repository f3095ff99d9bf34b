"""A saved student: opened with what it needs, evaluated, calibrated, asked about new rows."""
