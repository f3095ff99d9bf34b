"""What LELPTrainer does otherwise than Trainer: batches, checks of the loss, saving, the card."""
