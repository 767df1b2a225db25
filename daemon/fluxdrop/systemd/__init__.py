"""The systemd units: adapted to an installation, and installed."""
