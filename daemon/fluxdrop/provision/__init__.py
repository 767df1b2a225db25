"""Find Julia at the daemon's start, and provide it with ``fluxdrop setup``.

Only what the daemon needs is imported here. ``fluxdrop setup`` imports the modules that download when
it runs.
"""

from fluxdrop.provision.find import data_dir, find_julia, julia_command
from fluxdrop.provision.install import JuliaInstall

__all__ = ["JuliaInstall", "data_dir", "find_julia", "julia_command"]
