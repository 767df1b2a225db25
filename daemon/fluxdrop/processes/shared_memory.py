"""Memory shared with a child process, for data that is too large to copy through a pipe."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SharedMemory:
    """An anonymous file (memfd_create(2)) that both processes map. The child inherits `descriptor`.

    Raises OSError at construction if the system has no such files.
    """

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no files in memory")
        self.descriptor = os.memfd_create("fluxdrop")
        self._mapped: mmap.mmap | None = None

    def put(self, array: NDArray[np.float32]) -> None:
        """Write the elements of *array*, as float32 and row-major, at the beginning; grow if necessary.

        Raises:
            OSError: There is not enough memory.
        """
        import numpy as np

        if self._mapped is None or len(self._mapped) < array.nbytes:
            self._unmap()
            # Without this, a write to a page for which there is no memory would kill this process.
            os.posix_fallocate(self.descriptor, 0, array.nbytes)
            self._mapped = mmap.mmap(self.descriptor, array.nbytes)
        elements = np.frombuffer(self._mapped, "<f4", array.size)
        np.copyto(elements.reshape(array.shape), array)

    def close(self) -> None:
        """Unmap the memory and close the descriptor. A second call does nothing."""
        self._unmap()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _unmap(self) -> None:
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None
