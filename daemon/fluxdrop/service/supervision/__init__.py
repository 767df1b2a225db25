"""Noticing what is stuck, dies again and again, or fails for a reason that nobody foresaw."""
