"""Places elsewhere that are told of each checkpoint: one file a kind."""
