"""Child processes: the frames of the pipe, the supervised child, and memory shared with one."""
