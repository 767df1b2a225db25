"""What tests share. Importing it makes the process one that may run them."""

from __future__ import annotations

import os
import tempfile

# Where a test imports torch itself, as `fluxdrop.generate.generator` has it for the process that does.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())

# What tests put into roots themselves is their owner's alone; see fluxdrop.ownership.
os.umask(0o022)
