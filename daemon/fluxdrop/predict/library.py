"""Add models: turn an ONNX file, or a folder, into a bundle that was run and verified."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.files.transient import naming
from fluxdrop.predict.answer import answer_of
from fluxdrop.predict.answer_kind import complete_answer
from fluxdrop.predict.bundle import Bundle, known_bundles, load_bundle
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.compiler.compile import check_fit, compile_bundle, float32_form
from fluxdrop.predict.declared_input import derive_input
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.predict.installed import check_replaceable, install
from fluxdrop.predict.model_files import copy_files
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.predict.origin.facts import NO_SOURCES, Facts
from fluxdrop.predict.origin.gather import add_guesses, gather, guesses
from fluxdrop.predict.origin.trial import (
    Comparison,
    Picture,
    Trial,
    compare_pipelines,
    keep_previews,
    own_pictures,
    read_pictures,
    refuse_another,
    sample_files,
    try_pictures,
)
from fluxdrop.predict.origin.values import check_values
from fluxdrop.predict.origin.weights import Original
from fluxdrop.predict.parity import samples
from fluxdrop.predict.unserved import UnservedError, refuse_unserved
from fluxdrop.predict.verify import compare
from fluxdrop.provision import find_julia
from fluxdrop.toml_text import toml_value

if TYPE_CHECKING:
    from onnx import ModelProto

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ANSWER_KEYS = ("output", "activation", "thresholds", "unit", "value_name")
_KINDS_WITHOUT_CLASSES = ("regression", "embedding")
_ANY_SIZES = ((320, 320), (320, 48), (320, 32))
"""Widths and heights that most detectors and segmenters take, which leave them free, and most text recognisers."""
_TOP_LEVEL_KEYS = ("labels", "output_name", *_ANSWER_KEYS)


class SampleOutput(NamedTuple):
    """A model's output for the samples, and, for a native Flux model, the engine that computed it."""

    raw: NDArray[np.float32]
    engine: EngineInfo | None


class AddedModel(NamedTuple):
    """A bundle that was added, the engine that ran it, and what was found out."""

    bundle: Bundle
    engine: EngineInfo
    difference: float | None
    """The `relative_difference` from onnxruntime; None for a native Flux model, which has no reference."""
    remark: str | None = None
    """Why the difference is large; None if it is not."""
    trials: Sequence[Trial] = ()
    """What it says of the pictures that it was tried on."""
    comparison: Comparison | None = None
    """How far it is from the pipeline that it comes from; None where that is not at hand."""
    notes: Sequence[str] = ()
    """Sentences about what was assumed and may be wrong."""


def add_model(
    root: Root,
    source: Path,
    settings: Settings,
    *,
    name: str | None,
    labels: list[str] | None,
    options: dict[str, Any],
    sources: Mapping[str, str] = NO_SOURCES,
    pictures: Sequence[Path] = (),
    replace: bool = False,
) -> AddedModel:
    """Make a bundle from *source* and add it to *root*.

    The bundle is run first; an ONNX model is also compiled and compared with onnxruntime, and one that is made of a
    folder of weights with its original.

    Args:
        root: The root whose models folder gets the bundle.
        source: An ONNX file, or a folder with a model and perhaps a model.toml and samples/. What lies beside the model
            in a folder is read, too (`fluxdrop.predict.origin`).
        settings: The engine that runs the bundle, and its limits.
        name: The bundle's name; None for the name of *source*.
        labels: The names of the classes, in the model's order; None to take them from the folder's
            model.toml, or to number them.
        options: Keys of model.toml's ``[input]`` table, ``crop_pct`` (see `crop_percentage.resolve`), ``output`` and
            ``output_name``. A value of None is taken from the folder's model.toml, or else from the model.
        sources: Where the values of *options* and *labels* come from that are not options themselves, by key.
        pictures: Files to try the model on, as on those in samples/. What it saw of them is kept in tried/.
        replace: Whether the bundle takes the place of one that was added before.

    Raises:
        FluxdropError: When any step fails; *root* is unchanged then.
    """
    folder = source if source.is_dir() else None
    name = _check_name(name or (source.name if folder else source.stem), root, settings, replace)
    given = {key: value for key, value in options.items() if value is not None}
    if labels is not None:
        given["labels"] = labels
    tried = read_pictures([*pictures, *sample_files(source)], settings)
    with _staging_folder(root.models) as staging:
        copy = staging / name
        copy.mkdir()
        try:
            compared = [*tried, *own_pictures()]
            original = copy_files(source, copy, compared, given.get("size"))
            model = _parsed(copy / "model.onnx")
            facts = gather(source, model, original)
            _complete_facts(copy, model, facts, dict(given), sources)
            check_values(source, facts)
            top = facts.top | {"origin": facts.origin}
            output = _complete_spec(copy, settings, model, top, facts.input)
            compared = compared if original else tried
            added = _verify(load_bundle(str(copy)), root, settings, output, compared, original)
        except FluxdropError as error:
            # The error names the copy, which is about to be removed.
            error.message = _name_source(error.message, copy, source)
            error.hint = _name_source(error.hint, copy, source)
            raise
        if added.comparison is not None and not given.keys() - {"labels", *_ANSWER_KEYS}:
            refuse_another(source, added.comparison)
        if added.engine.note is not None:
            note = _name_source(added.engine.note, copy, source)
            added = added._replace(engine=msgspec.structs.replace(added.engine, note=note))
        added = added._replace(trials=added.trials[: len(tried)])
        keep_previews(copy, added.trials)
        files = [path for path in copy.rglob("*") if path.is_file()]
        durable.sync_all(files, sorted({path.parent for path in files}))
        if replace and name in known_bundles(root.models):
            # A daemon may have begun to use it meanwhile.
            check_replaceable(root, name, settings)
        install(copy, root)
    bundle = load_bundle(name, root.models)
    return added._replace(bundle=bundle, notes=[*facts.notes, *guesses(bundle.spec)])


def _check_name(name: str, root: Root, settings: Settings, replace: bool) -> str:
    """Return *name*; raise if it is not a valid bundle name or is taken and not to be replaced."""
    if not _NAME.fullmatch(name):
        raise FluxdropError(
            f"{name!r} cannot be a model's name",
            hint="Give --name with letters, digits, dots, dashes and underscores.",
            kind="model",
        )
    if name in known_bundles(root.models):
        if not replace:
            raise FluxdropError(
                f"There is a model {name} already",
                hint="Give another --name, or --replace.",
                kind="model",
            )
        check_replaceable(root, name, settings)
    return name


def _name_source(text: str, copy: Path, source: Path) -> str:
    """Replace the paths of the copy in *text* by those of the *source*."""
    if source.is_file():
        text = text.replace(str(copy / "model.onnx"), str(source))
    if not (source / "model.toml").is_file():
        text = text.replace(str(copy / "model.toml"), "What the options say")
    return text.replace(str(copy), str(source))


@contextmanager
def _staging_folder(models: Path) -> Iterator[Path]:
    """Make a temporary folder in *models*, which is removed with what is left in it."""
    models.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".adding-", dir=models))
    try:
        with naming(models):
            yield staging
    finally:
        shutil.rmtree(staging)


def _complete_facts(
    bundle: Path,
    model: ModelProto | None,
    facts: Facts,
    given: dict[str, Any],
    sources: Mapping[str, str],
) -> None:
    """Add to *facts* what is *given*, by key, with its *sources*, and what is guessed.

    What is given takes precedence over *facts*, and these over what *model* declares, the ONNX model in *bundle*, if it
    has one.

    Raises:
        FluxdropError: Kind ``model``, when the model is of a kind that is not served.
    """
    top = {key: given.pop(key) for key in _TOP_LEVEL_KEYS if key in given}
    if model is not None:
        if "output_name" not in facts.top | top:
            refuse_unserved(bundle / "model.onnx", model)
        declared = derive_input(model)
        if min(declared.get("size", [-1])) < 0:
            declared.pop("size", None)
        facts.declare(declared, "the model: its input")
    facts.override(top, given, sources)
    add_guesses(facts)


def _parsed(onnx_file: Path) -> ModelProto | None:
    """Return the model in *onnx_file*, without its large weights; None if there is no such file."""
    from fluxdrop.predict.compiler.source import InvalidModelError, parse
    from fluxdrop.predict.compiler.weights import structure

    if not onnx_file.is_file():
        return None
    try:
        return structure(parse(onnx_file.read_bytes(), onnx_file.parent))
    except InvalidModelError as error:
        raise FluxdropError(
            f"{onnx_file} is not a valid ONNX model: {error}", kind="model"
        ) from error


def _complete_spec(
    bundle: Path,
    settings: Settings,
    model: ModelProto | None,
    top: dict[str, Any],
    table: dict[str, Any],
) -> SampleOutput:
    """Run the model to find what *top* leaves open, and write the complete model.toml.

    *model* is its ONNX model, if it has one.
    """
    if "size" not in table:
        raise _ask_for_size(bundle, settings, model, top, table)
    output = _complete_answer(bundle, settings, model, top, table)
    (bundle / "model.toml").write_text(spec_text(top, table), encoding="utf-8")
    return output


def _ask_for_size(
    bundle: Path,
    settings: Settings,
    model: ModelProto | None,
    top: dict[str, Any],
    table: dict[str, Any],
) -> FluxdropError:
    """Return the error that asks for the size of a model's pictures, or the one that it is not served at any size."""
    if model is not None:
        width, height = derive_input(model).get("size", [-1, -1])
        for other_width, other_height in _ANY_SIZES:
            size = [width if width > 0 else other_width, height if height > 0 else other_height]
            try:
                _complete_answer(bundle, settings, model, dict(top), table | {"size": size})
                break
            except UnservedError as error:
                return error
            except FluxdropError:
                # It may not run at that size, or something else may be unclear.
                pass
    return FluxdropError(
        "The model does not declare the size of its pictures",
        hint="Give --size N or WIDTHxHEIGHT, the size that it was trained with.",
        kind="model",
    )


def _complete_answer(
    bundle: Path,
    settings: Settings,
    model: ModelProto | None,
    top: dict[str, Any],
    table: dict[str, Any],
) -> SampleOutput:
    """Run the model, and add to *top* what it leaves open of the answer; leaves a preliminary model.toml."""
    # Until the kind of output is known, labels only say how many numbers the right output has.
    trial = top
    if top.get("output") not in _KINDS_WITHOUT_CLASSES:
        trial = {key: value for key, value in top.items() if key not in _ANSWER_KEYS}
        trial["output"] = "multi-label" if "labels" in top else "embedding"
    (bundle / "model.toml").write_text(spec_text(trial, table), encoding="utf-8")
    loaded = load_bundle(str(bundle))
    output = _run_samples(loaded, settings)
    complete_answer(loaded, model, top, output.raw)
    return output


def _run_samples(bundle: Bundle, settings: Settings) -> SampleOutput:
    """Run the model on the samples, without a check that it has one number per label."""
    batch = samples(bundle, settings)
    if bundle.kind == "flux":
        with closing(open_engine(settings, bundle)) as engine:
            return SampleOutput(engine.predict(batch), engine.info)
    check_fit(bundle)
    try:
        return SampleOutput(
            OnnxruntimeEngine(bundle, model=float32_form(bundle)).predict(batch), None
        )
    except FluxdropError:
        if settings.engine != "onnxruntime":
            # Where onnxruntime does not know an operator either, this error names the node.
            compile_bundle(bundle)
        raise


def _key_lines(entries: dict[str, Any]) -> list[str]:
    return [f"{key} = {toml_value(value)}" for key, value in entries.items() if value is not None]


def spec_text(top: dict[str, Any], table: dict[str, Any]) -> str:
    """Return the text of model.toml, without the keys whose value is None."""
    tables = {key: value for key, value in top.items() if isinstance(value, dict)}
    lines = _key_lines({key: value for key, value in top.items() if key not in tables})
    for name, entries in {"input": table, **tables}.items():
        lines += ["", f"[{name}]"] if entries else []
        lines += _key_lines(entries)
    return "\n".join(lines) + "\n"


def _verify(
    bundle: Bundle,
    root: Root,
    settings: Settings,
    output: SampleOutput,
    pictures: Sequence[Picture],
    original: Original | None,
) -> AddedModel:
    """Check the answers, run an ONNX model on the chosen engine to compare the outputs, and try it on *pictures*."""
    for row in output.raw:
        answer_of(row, bundle)
    if settings.engine == "auto" and find_julia() is not None:
        # The purpose is to run on Flux, so a fallback to onnxruntime is an error; --engine onnxruntime allows it.
        settings = msgspec.structs.replace(settings, engine="julia")
    if output.engine is not None and not pictures:
        return AddedModel(bundle, output.engine, None)
    with closing(open_engine(settings, bundle, cache=root.graphs)) as engine:
        compared = None
        if output.engine is None:
            batch = samples(bundle, settings)
            found = engine.predict(batch)
            compared = compare(bundle, settings, batch, output.raw, found, engine.info)
        trials = try_pictures(bundle, engine, pictures)
        return AddedModel(
            bundle,
            engine.info,
            compared.difference if compared else None,
            compared.remark if compared else None,
            trials,
            compare_pipelines(bundle, trials, original) if original else None,
        )
