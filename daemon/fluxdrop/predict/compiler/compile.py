"""Compile a bundle's ONNX model to the worker's graph file."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto

from fluxdrop.errors import FluxdropError
from fluxdrop.files.durable import write
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.compiler.batch import with_free_batch
from fluxdrop.predict.compiler.fit import fitted, refused
from fluxdrop.predict.compiler.graph_file import VERSION
from fluxdrop.predict.compiler.lower import lower
from fluxdrop.predict.compiler.merge import merged
from fluxdrop.predict.compiler.operators import UnsupportedError
from fluxdrop.predict.compiler.source import ExternalDataError, UnsoundError, normal_form, parse

COMPILER_VERSION = 5
"""Raised whenever the same model compiles to something else, so that no old compilation is taken."""


def compiled(bundle: Bundle, cache: Path | None) -> bytes:
    """The graph file of *bundle*, out of the folder *cache* where it was compiled before."""
    if cache is None:
        return compile_bundle(bundle)
    # What `fitted` takes from model.toml makes another graph of the same model.
    spec = bundle.spec
    fit = repr((spec.input.shape, len(spec.labels), spec.output_name)).encode()
    digest = hashlib.sha256(fit).hexdigest()[:16]
    path = cache / f"{bundle.sha256}-{digest}-{VERSION}.{COMPILER_VERSION}.graph"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        graph = compile_bundle(bundle)
        # Without room for a copy the next start compiles again.
        with contextlib.suppress(OSError):
            write(path, graph)
        return graph


def compile_bundle(bundle: Bundle) -> bytes:
    """Compile *bundle* to a graph file.

    Raises FluxdropError, kind ``model``, that names the file, and the node with its operator where it is one node's
    doing, when the model is damaged, does not fit its model.toml, or needs something that the worker cannot do.
    """
    with refusing(bundle):
        return merged(lower(normal_model(bundle))).to_bytes()


def check_fit(bundle: Bundle) -> None:
    """Raise FluxdropError when *bundle*'s model is damaged or does not fit its model.toml."""
    with refusing(bundle):
        fitting_model(bundle)


def normal_model(bundle: Bundle) -> ModelProto:
    """The model of *bundle* in the form that is lowered, with the errors of `fitting_model`."""
    return with_free_batch(normal_form(fitting_model(bundle)))


def fitting_model(bundle: Bundle) -> ModelProto:
    """The model of *bundle*, which takes what its model.toml makes and gives a number a label.

    Raises FluxdropError where it does not, and the errors of `parse`.
    """
    if bundle.kind == "flux":
        raise FluxdropError(
            f"The model {bundle.name} is a native Flux model: there is nothing to compile",
            hint=f"The engine julia runs {bundle.file} itself.",
            kind="model",
        )
    data = bundle.onnx.read_bytes()
    if hashlib.sha256(data).hexdigest() != bundle.sha256:
        raise refused(bundle, "it changed while it was being read")
    return fitted(parse(data), bundle)


@contextlib.contextmanager
def refusing(bundle: Bundle) -> Iterator[None]:
    """Turn what goes wrong with *bundle*'s model into a FluxdropError that names its file."""
    try:
        yield
    except ExternalDataError as error:
        raise FluxdropError(
            f"{bundle.onnx} cannot be used: {error}",
            hint="Add it with `fluxdrop model add`, which makes one file of it.",
            kind="model",
        ) from error
    except UnsupportedError as error:
        raise refused(bundle, str(error)) from error
    except (UnsoundError, LookupError, ValueError) as error:
        # What the checker lets pass of a damaged model shows when it is used.
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise FluxdropError(
            f"{bundle.onnx} is not a sound ONNX model: {reason}",
            hint="Export it again.",
            kind="model",
        ) from error
