"""Jobs: what is being done to one input, and the index of all that was."""
