"""Files and folders: opening and writing them safely, and where a root has what."""
