"""A student to train: loaded, new, or made of its teacher."""
