"""Files and folders: open and write them safely, and know the layout of a root."""
