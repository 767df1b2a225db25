"""What commands ask of a daemon: the messages, their files, and the daemon that reads them."""
