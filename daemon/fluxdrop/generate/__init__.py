"""Make pictures from prompts: infotext, the generator process, and the daemon's side of it."""
