"""Tasks of the evidence benchmark: real data, real teachers and students, made once and kept in a cache folder."""
