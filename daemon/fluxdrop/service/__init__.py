"""The daemon: a main loop, and a pipeline of stages, each a thread with a queue."""
