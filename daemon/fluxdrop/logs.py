"""Structured logs: coloured on a terminal, one JSON object a line otherwise, and a rotating copy in
the root.
"""

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
    """A structlog logger; what it logs before `configure` goes through the standard library's
    defaults.
    """
    return structlog.stdlib.get_logger(name)


def file_trouble() -> str:
    """Why lines do not reach the file at the moment; empty when they do."""
    return next(
        (
            handler.trouble
            for handler in logging.getLogger("fluxdrop").handlers
            if isinstance(handler, _WholeLines)
        ),
        "",
    )


class _Survivor(logging.Handler):
    """Does without the lines that a full disk or a closed pipe does not take."""

    trouble = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.trouble = ""
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.trouble = error.strerror or str(error)
        else:
            super().handleError(record)


class _Stderr(_Survivor, logging.StreamHandler[TextIO]):
    """stderr, which may be a file on a full disk."""


class _WholeLines(_Survivor, logging.handlers.RotatingFileHandler):
    """A log file without half lines, opened with the first one."""

    _raw: _WholeWrites | None = None

    def _open(self) -> io.TextIOWrapper:
        # At each line until it can be opened: the disk may be away.
        self._raw = _WholeWrites(self.baseFilename, "ab", opener=_open)
        return io.TextIOWrapper(self._raw, "utf-8", write_through=True)

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - logging's name
        """See `RotatingFileHandler.shouldRollover`, which asks the filesystem twice for each line."""
        if self._raw is None or self._raw.closed:
            return bool(super().shouldRollover(record))
        return self._raw.tell() > self.maxBytes // 2 and bool(super().shouldRollover(record))


def _open(path: str, flags: int) -> int:
    return durable.open_own(Path(path), flags)


class _WholeWrites(io.FileIO):
    """A file that is not left with half of a write."""

    def write(self, data: Any) -> int:
        written = super().write(data)
        if written < len(data):
            self.truncate(self.seek(0, io.SEEK_END) - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
        return written


def configure(level: str = "info", folder: Path | None = None) -> None:
    """Send log lines to stderr, and as JSON lines to *folder*/fluxdrop.log where a folder is given."""
    terminal = sys.stderr.isatty()
    stderr = _Stderr(sys.stderr)
    stderr.setFormatter(_console_formatter() if terminal else _json_formatter())
    stderr.setLevel(level.upper())
    handlers: list[logging.Handler] = [stderr]
    if folder is not None:
        file = _WholeLines(
            folder / "fluxdrop.log",
            maxBytes=_FILE_BYTES,
            backupCount=_FILES,
            encoding="utf-8",
            delay=True,
        )
        file.setFormatter(_json_formatter())
        handlers.append(file)
    # The file keeps what helps after the fact, the worker's own output among it, whatever stderr
    # shows.
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


class _OnceFormatter(structlog.stdlib.ProcessorFormatter):
    """Renders each record once, however many handlers ask for it: a rotating file asks twice."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        if "rendered" not in record.__dict__:
            record.__dict__["rendered"] = super().format(record)
        return str(record.__dict__["rendered"])


def _json_formatter() -> logging.Formatter:
    return _OnceFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )
