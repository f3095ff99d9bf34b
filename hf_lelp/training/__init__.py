"""What LELPTrainer is made of: columns, automatic settings, dataloading, saving."""
