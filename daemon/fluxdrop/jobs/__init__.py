"""Jobs: the work on one input each, and the index of all jobs."""
