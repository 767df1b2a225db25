"""Memory that a child process shares with this one, for what is too large to be copied through a pipe."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SharedMemory:
    """An anonymous file (memfd_create(2)) that both processes map; *descriptor* is for the child to inherit.

    Raises OSError at construction where the system has no such files.
    """

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no files in memory")
        self.descriptor = os.memfd_create("fluxdrop")
        self._mapped: mmap.mmap | None = None

    def put(self, array: NDArray[np.float32]) -> None:
        """Write the elements of *array*, float32, row-major, at the beginning; the memory grows to hold them.

        Raises OSError when there is no more memory.
        """
        import numpy as np

        if self._mapped is None or len(self._mapped) < array.nbytes:
            self._unmap()
            # A page that is not there at its first writing, as memory is short, would be the end of this process.
            os.posix_fallocate(self.descriptor, 0, array.nbytes)
            self._mapped = mmap.mmap(self.descriptor, array.nbytes)
        elements = np.frombuffer(self._mapped, "<f4", array.size)
        np.copyto(elements.reshape(array.shape), array)

    def close(self) -> None:
        """Let go of the memory; a second call does nothing."""
        self._unmap()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _unmap(self) -> None:
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None
