"""What the subclasses mean, and where the student loses: a page to read."""
