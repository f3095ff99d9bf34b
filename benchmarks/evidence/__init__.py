"""Compare what students of every method learn from real teachers, for docs/understand/evidence.md."""
