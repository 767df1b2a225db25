"""The systemd units: fitted to an installation, and installed."""
