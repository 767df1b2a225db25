"""From a prompt to a picture: infotext, the generator process, and the host's side of it."""
