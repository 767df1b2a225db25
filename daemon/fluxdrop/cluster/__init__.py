"""Generating on several hosts, by Ray.

The daemon uses this package only where ``cluster`` is set, and never imports Ray itself: the broker, a
child process, does.
"""
