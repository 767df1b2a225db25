"""Publishing: from a finished job to files that others read."""
