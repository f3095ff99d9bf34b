"""What the library does on a GPU, in one run of less than eight minutes."""
