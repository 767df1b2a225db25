"""Handing on what ended: to hooks, which are commands or receivers on the network, and to results.csv."""
