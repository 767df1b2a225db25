"""The stages that jobs pass through, each on a thread of its own."""
