"""What a support question would ask: the machine, the folders of a root, and what lies in them."""
