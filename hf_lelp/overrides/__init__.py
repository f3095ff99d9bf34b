"""What LELPTrainer does otherwise than Trainer: batches, dataloading, checks of the loss, saving, the card."""
