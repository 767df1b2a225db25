"""From a file in the inbox to a claimed job."""
