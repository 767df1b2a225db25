"""What `make bench` measures: ratios, each within one run."""
