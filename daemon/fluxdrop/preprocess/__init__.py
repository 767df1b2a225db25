"""Decode picture files and turn them into a model's input tensors."""
