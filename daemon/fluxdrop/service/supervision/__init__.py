"""Detection of parts that are stuck, child processes that die repeatedly, and unexpected exceptions."""
