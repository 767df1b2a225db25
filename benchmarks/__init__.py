"""What `make bench` measures: ratios, each within one run."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
# Some measure what the tests' own modules make: architectures, quantised models, clusters.
sys.path.append(str(TESTS))
