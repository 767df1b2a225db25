"""From a finished job to files that others read."""
