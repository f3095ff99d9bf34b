"""Options, data arguments, and one run from arguments to results."""
