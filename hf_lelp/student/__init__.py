"""The two forms of head; loading, checkpoints and the model card."""
