"""Where songs for training come from, how the model is trained and measured. Not needed to use the program."""
