"""From a picture file to the tensor that a model wants."""
