"""Teachers of other kinds: soft labels in the data's own columns, several teachers together, an encoder beside them."""
