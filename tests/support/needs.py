"""What a test may need of the machine beside the package itself."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from fluxdrop.provision import find_julia

JULIA = find_julia()
GENERATES = all(find_spec(name) for name in ("torch", "diffusers", "transformers", "peft"))

needs_julia = pytest.mark.skipif(JULIA is None, reason="no Julia: fluxdrop setup provides one")
needs_generation = pytest.mark.skipif(not GENERATES, reason="the extra 'generate' is not installed")
