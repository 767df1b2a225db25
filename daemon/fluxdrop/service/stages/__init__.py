"""The stages through which jobs pass, each a thread."""
