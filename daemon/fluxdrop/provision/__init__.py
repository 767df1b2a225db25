"""Where Julia comes from: finding it at the daemon's start, providing it at ``fluxdrop setup``.

The daemon needs ``find_julia`` and ``julia_command`` alone, so only they are imported here;
everything that downloads lives in modules that ``fluxdrop setup`` imports when it runs.
"""

from fluxdrop.provision.find import data_dir, find_julia, julia_command
from fluxdrop.provision.install import JuliaInstall

__all__ = ["JuliaInstall", "data_dir", "find_julia", "julia_command"]
