"""A fine-tuned classifier, run once, its columns kept."""
