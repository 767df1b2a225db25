"""Telling others how the daemon is: status, the log, metrics, systemd and the gallery."""
