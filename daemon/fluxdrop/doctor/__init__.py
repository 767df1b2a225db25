"""The checks of ``fluxdrop doctor``: the machine, a root's folders, and their contents."""
