"""Settings, from fluxdrop.toml in the root, FLUXDROP_ variables and flags; the later one overrides.

The model that ``fluxdrop model use`` chose comes between the file and the variables.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec

from fluxdrop.config.folders import check_folders, check_limits
from fluxdrop.config.hooks import check_hooks
from fluxdrop.config.settings import Settings
from fluxdrop.config.tables import FolderTable, HooksTable, PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import open_given
from fluxdrop.files.transient import remedy_of

FILE = "fluxdrop.toml"
PREFIX = "FLUXDROP_"
OTHER_VARIABLES = (
    "FLUXDROP_ROOT",
    "FLUXDROP_JULIA",
    "FLUXDROP_JULIA_PROJECT",
    "FLUXDROP_DATA_DIR",
    "FLUXDROP_HOOK_SECRET",
    "FLUXDROP_HOST_CONFIG",
    "FLUXDROP_CLUSTER_ADDRESS",
    "FLUXDROP_CLUSTER_TOKEN",
    "FLUXDROP_CLUSTER_TLS",
    "FLUXDROP_CLUSTER_GPUS",
    "FLUXDROP_CLUSTER_OBJECT_STORE_BYTES",
    "FLUXDROP_CLUSTER_FOLDER",
    "FLUXDROP_COVERAGE",
    "FLUXDROP_FAILPOINT",
    "FLUXDROP_SNAPSHOTS",
)
"""The variables that are not settings. The last three are for tests."""


def load(
    root: Path | None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Return the settings for *root*.

    Args:
        root: The root; without one, only variables and flags are used.
        flags: Values of flags by setting; those that are None are ignored.
        environ: The environment.

    Raises:
        FluxdropError: A key or variable is unknown (the hint names the nearest known one), a value has
            the wrong type or range, or a file cannot be read; kind ``config``.
    """
    found = sources(root, flags, environ)
    settings = Settings(**{key: one.value for key, one in found.items()})
    check_limits(settings)
    return settings


class Found(NamedTuple):
    """A setting that is not at its default, and the *place* that sets it."""

    value: Any
    place: str


def sources(
    root: Path | None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Found]:
    """Return the settings that are not at their defaults, each with the place that decides it.

    Arguments and errors are those of `load`.
    """
    found: dict[str, Found] = {}
    if root is not None:
        file, model = root / FILE, Root(root).model_in_use
        found |= {key: Found(value, str(file)) for key, value in _from_file(file).items()}
        found |= {key: Found(value, "model use") for key, value in _model_in_use(model).items()}
    for key, value in _from_environment(environ).items():
        found[key] = Found(value, f"{PREFIX}{key.upper()}")
    for key, value in _from_flags(flags or {}).items():
        found[key] = Found(value, _flag(key))
    return found


def choose_model(root: Root, model: str) -> None:
    """Store *model* as the one that *root*'s daemon uses from its next start. Raise OSError."""
    durable.write(root.model_in_use, f"{model}\n".encode())


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = read_toml(path)
    except FileNotFoundError:
        return {}
    _refuse_unknown(values, Settings.__struct_fields__, path, "")
    for kind, struct in _TABLES.items():
        tables = values.get(kind)
        for name, table in tables.items() if isinstance(tables, dict) else ():
            check_table(table, struct, path, f"{kind}.{name}")
    if isinstance(values.get("hooks"), dict):
        check_table(values["hooks"], HooksTable, path, "hooks")
    checked = {key: _checked(key, value, f"{key} in {path}") for key, value in values.items()}
    check_folders(checked.get("folders", {}), str(path))
    check_hooks(checked.get("hooks", HooksTable()), str(path))
    return checked


def read_toml(path: Path) -> dict[str, Any]:
    """Return the contents of the TOML file *path*.

    Raises:
        FileNotFoundError: There is no such file.
        FluxdropError: It cannot be read; kind ``config``.
    """
    try:
        with open_given(path) as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unread(path, error) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FluxdropError(f"{path} cannot be read: {error}.", kind="config") from error


def check_table(table: Any, struct: type[msgspec.Struct], path: Path, place: str = "") -> None:
    """Check each value of *table*, which is at *place* in *path*, so that an error can name its key.

    Raises:
        FluxdropError: It has an unknown key, or a value of a wrong type or range; kind ``config``.
    """
    if not isinstance(table, dict):
        raise FluxdropError(f"{place} in {path} is {table!r}: expected a table.", kind="config")
    prefix = f"{place}." if place else ""
    _refuse_unknown(table, struct.__struct_fields__, path, prefix)
    for field in msgspec.structs.fields(struct):
        if field.name in table:
            _convert(table[field.name], field.type, f"{prefix}{field.name} in {path}")


def _refuse_unknown(
    table: Mapping[str, Any], known: tuple[str, ...], path: Path, prefix: str
) -> None:
    for key in table:
        if key not in known:
            hint = _nearest(key, known, prefix)
            raise FluxdropError(
                f"{path} has the unknown key {prefix}{key}.", hint=hint, kind="config"
            )


def _model_in_use(path: Path) -> dict[str, Any]:
    try:
        return {"model": durable.read_own(path).decode().strip()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unread(path, error) from error
    except UnicodeDecodeError as error:
        raise FluxdropError(f"{path} cannot be read: {error}", kind="config") from error


def _unread(path: Path, error: OSError) -> FluxdropError:
    message = f"{path} cannot be read: {error.strerror}"
    return FluxdropError(message, hint=remedy_of(error), kind="config")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = [*(PREFIX + key.upper() for key in Settings.__struct_fields__), *OTHER_VARIABLES]
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            hint = _nearest(name, known)
            raise FluxdropError(
                f"{name} in the environment is not a setting.", hint=hint, kind="config"
            )
    values = {}
    for key in Settings.__struct_fields__:
        text = environ.get(PREFIX + key.upper())
        if text:
            name = f"{PREFIX}{key.upper()} in the environment"
            values[key] = _checked(key, text, name, strict=False)
    return values


def _from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _checked(key, value, _flag(key)) for key, value in flags.items() if value is not None
    }


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"Did you mean {prefix}{near[0]}?"
    return (
        "`fluxdrop config` lists the keys, docs/generation.md those of a pipeline,"
        " docs/folders.md those of a folder, docs/cluster.md those of a host's host.toml."
    )


def _checked(key: str, value: Any, name: str, *, strict: bool = True) -> Any:
    return _convert(value, _FIELD_TYPES[key], name, strict=strict)


def _convert(value: Any, annotation: Any, name: str, *, strict: bool = True) -> Any:
    """Return *value* as *annotation* has it; raise FluxdropError, which calls it *name*."""
    try:
        return msgspec.convert(value, annotation, strict=strict)
    except msgspec.ValidationError as error:
        reason = str(error).lower().replace(" | null`", "`")
        if float in _parts(annotation):
            # msgspec says of other words only that they are none of those that the setting may be.
            reason = reason.replace(
                f"invalid enum value {value!r}".lower(), "expected `auto` or a number"
            )
        raise FluxdropError(f"{name} is {value!r}: {reason}.", kind="config") from error


def _parts(annotation: Any) -> list[Any]:
    """Return *annotation* and all that it consists of."""
    return [annotation, *(part for each in get_args(annotation) for part in _parts(each))]


_TABLES: dict[str, type[msgspec.Struct]] = {
    "pipelines": PipelineTable,
    "folders": FolderTable,
}
_FIELD_TYPES = {field.name: field.type for field in msgspec.structs.fields(Settings)}
