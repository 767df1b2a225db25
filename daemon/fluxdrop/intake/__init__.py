"""The intake: from a file in the inbox to a claimed job."""
