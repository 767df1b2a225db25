"""Structured logs: in colour on a terminal, else one JSON object per line; a rotating copy in the root."""

from __future__ import annotations

import errno
import io
import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import structlog

from fluxdrop.files import durable

_FILE_BYTES = 10_000_000
_FILES = 5

_SHARED: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


# At import, because structlog's own default prints to stdout, where commands print their results.
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        *_SHARED,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)


def get_logger(name: str) -> Any:
    """Return a structlog logger. Before `configure`, the standard library's defaults handle its lines."""
    return structlog.stdlib.get_logger(name)


def file_error() -> str:
    """Return why the last line did not reach the log file; empty if it did."""
    return next(
        (
            handler.last_error
            for handler in logging.getLogger("fluxdrop").handlers
            if isinstance(handler, _LogFile)
        ),
        "",
    )


class _LossyHandler(logging.Handler):
    """A handler that drops the lines that a full disk or a closed pipe does not take."""

    last_error = ""
    """Why the last line was dropped; empty if it was written."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record* and set `last_error`."""
        self.last_error = ""
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Record an OSError in `last_error`; treat other exceptions as `logging` does."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.last_error = error.strerror or str(error)
        else:
            super().handleError(record)


class _Stderr(_LossyHandler, logging.StreamHandler[TextIO]):
    """Standard error, which may be a file on a full disk."""


class _LogFile(_LossyHandler, logging.handlers.RotatingFileHandler):
    """A rotating log file that contains complete lines only. The first line opens it."""

    _raw: _AtomicWriteFile | None = None

    def _open(self) -> io.TextIOWrapper:
        # Each line tries it until it succeeds: the disk may not be there.
        self._raw = _AtomicWriteFile(self.baseFilename, "ab", opener=_open)
        return io.TextIOWrapper(self._raw, "utf-8", write_through=True)

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - logging's name
        """Return whether to rotate the file before *record*.

        The method of the base class makes two system calls for each line, so it is asked only if the
        file has more than half its maximum size.
        """
        if self._raw is None or self._raw.closed:
            return bool(super().shouldRollover(record))
        return self._raw.tell() > self.maxBytes // 2 and bool(super().shouldRollover(record))


def _open(path: str, flags: int) -> int:
    return durable.open_own(Path(path), flags)


class _AtomicWriteFile(io.FileIO):
    """A file opened to append, of which a `write` adds all of its argument or nothing."""

    def write(self, data: Any) -> int:
        """Append *data*. Raise OSError, with the file as it was before, if a part does not fit."""
        written = super().write(data)
        if written < len(data):
            self.truncate(self.seek(0, io.SEEK_END) - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
        return written


def configure(level: str = "info", folder: Path | None = None) -> None:
    """Send log lines to stderr and, as JSON, to fluxdrop.log in *folder* if one is given.

    *level* is the lowest level for stderr; the file gets all levels.
    """
    terminal = sys.stderr.isatty()
    stderr = _Stderr(sys.stderr)
    stderr.setFormatter(_console_formatter() if terminal else _json_formatter())
    stderr.setLevel(level.upper())
    handlers: list[logging.Handler] = [stderr]
    if folder is not None:
        file = _LogFile(
            folder / "fluxdrop.log",
            maxBytes=_FILE_BYTES,
            backupCount=_FILES,
            encoding="utf-8",
            delay=True,
        )
        file.setFormatter(_json_formatter())
        handlers.append(file)
    # The file also gets what helps to find a cause later, such as the output of the worker.
    _route("fluxdrop", handlers, logging.DEBUG if folder is not None else level.upper())
    _route("watchdog", handlers, logging.WARNING)


def _route(name: str, handlers: list[logging.Handler], level: int | str) -> None:
    logger = logging.getLogger(name)
    for old in logger.handlers:
        old.close()
    logger.handlers = list(handlers)
    logger.propagate = False
    logger.setLevel(level)


def _console_formatter() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.dev.ConsoleRenderer(colors=True),
        ],
    )


class _CachingFormatter(structlog.stdlib.ProcessorFormatter):
    """A formatter that renders each record once: a rotating file asks for the text twice."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of *record*."""
        if "rendered" not in record.__dict__:
            record.__dict__["rendered"] = super().format(record)
        return str(record.__dict__["rendered"])


def _json_formatter() -> logging.Formatter:
    return _CachingFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )
