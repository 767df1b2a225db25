"""What the files beside a model, and its metadata, say of its labels and of how its pictures are made."""
