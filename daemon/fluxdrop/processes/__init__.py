"""Child processes: the frames on the pipe, the supervised child, and memory shared with it."""
