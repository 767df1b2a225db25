"""The daemon: stages in a row, each a thread with a bounded queue."""
