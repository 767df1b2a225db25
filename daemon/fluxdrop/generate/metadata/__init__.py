"""How other programs say what a picture was generated from, in JSON and in a picture's metadata."""
