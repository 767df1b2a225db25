"""What the daemon reports: its heartbeat for `status`, metrics, notices to systemd, and the gallery."""
