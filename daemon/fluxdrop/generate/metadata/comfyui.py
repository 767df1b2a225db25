"""Read a graph of ComfyUI, which it writes into its pictures as ``prompt`` and calls the API format.

The graph has a node by id, each with a ``class_type`` and ``inputs``; an input is a value or a link ``[id, output]``.
The nodes' inputs are those of ComfyUI's ``nodes.py`` and ``comfy_extras/``; elsewhere the same names are looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.infotext import Description
from fluxdrop.generate.metadata.comfyui_texts import Texts
from fluxdrop.generate.metadata.graph import Graph, Node
from fluxdrop.generate.metadata.loras import file_stem, lora_tag
from fluxdrop.generate.metadata.weight_syntax import from_comfyui
from fluxdrop.generate.parameter_lines import Pair

_SAVERS = re.compile(r"save|output", re.IGNORECASE)
_MAX_NAMED = 5
# Nodes that are one sampler or one schedule.
_SAMPLER_NODES = {
    "SamplerEulerAncestral": "euler_ancestral",
    "SamplerDPMPP_2M_SDE": "dpmpp_2m_sde",
    "SamplerDPMPP_3M_SDE": "dpmpp_3m_sde",
    "SamplerDPMPP_SDE": "dpmpp_sde",
    "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral",
    "SamplerDPMAdaptative": "dpm_adaptive",
    "SamplerLMS": "lms",
    "SamplerLCMUpscale": "lcm",
}
_SCHEDULE_NODES = {
    "KarrasScheduler": "karras",
    "ExponentialScheduler": "exponential",
    "PolyexponentialScheduler": "polyexponential",
    "BetaSamplingScheduler": "beta",
    "SDTurboScheduler": "turbo",
    "AlignYourStepsScheduler": "align_your_steps",
}
_WIDTHS = (("width", "height"), ("empty_latent_width", "empty_latent_height"))
_RESOLUTION = re.compile(r"(\d+) ?x ?(\d+).*", re.ASCII)
# Nodes that change a picture, and that infotext cannot express; besides them all that take a model and give one.
_UNEXPRESSED = re.compile(r"CLIPSetLastLayer|RepeatLatent|LatentBatch|LatentFromBatch")
_PASSING_LATENTS = re.compile(r"reroute|vae", re.IGNORECASE)
_MODEL_KEYS = ("ckpt_name", "unet_name", "model_name", "base_ckpt_name")


def is_graph(value: Any) -> bool:
    """Return whether *value* is a graph: an object of nodes."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(node, dict) and "class_type" in node for node in value.values())
    )


def is_workflow(value: Any) -> bool:
    """Return whether *value* is a workflow, as ComfyUI's page saves it."""
    return isinstance(value, dict) and isinstance(value.get("nodes"), list) and "links" in value


def read_graph(data: Mapping[str, Any]) -> Description:
    """Return what the graph's sampler made its picture from.

    Where one sampler refines what another made, it is the first one, which began with noise.

    Raises:
        FluxdropError: Kind ``prompt``, when the graph cannot be followed to a sampler and its prompt.
    """
    graph = Graph(data)
    samplers = _samplers(graph)
    if not samplers:
        raise FluxdropError(
            "ComfyUI's graph has no sampler that fluxdrop can follow.",
            hint="Write a prompt file with the prompt and the parameters.",
            kind="prompt",
        )
    sampler, *others = samplers
    reader = _SamplerReader(graph, sampler)
    description = reader.describe()
    if others:
        names = ", ".join(f"{node.kind} ({node.id})" for node in others[:_MAX_NAMED])
        description.pairs.append(("ComfyUI's other samplers", names))
    return description


def _is_sampler(node: Node) -> bool:
    """Return whether *node* samples: it has a latent, and prompts or a guider."""
    return "latent_image" in node.inputs and (
        "positive" in node.inputs or "guider" in node.inputs or "conditioning" in node.inputs
    )


def _samplers(graph: Graph) -> list[Node]:
    """Return the sampler that a picture began with, and the others on the way to it and beside it.

    Begins with the nodes that save pictures, and of those with the one of the lowest id.
    """
    linked = {link.id for node in graph.nodes() for link in graph.linked(node)}
    ends = sorted(
        (node for node in graph.nodes() if node.id not in linked),
        key=lambda node: (_SAVERS.search(node.kind) is None, node.order),
    )
    seen: set[str] = set()
    for end in [*ends, *graph.nodes()]:
        found = [node for node in graph.upstream(end, seen) if _is_sampler(node)]
        if found:
            first = _origin(graph, found[0])
            rest = [node for node in graph.nodes() if _is_sampler(node) and node.id != first.id]
            return [first, *rest]
    return []


def _origin(graph: Graph, sampler: Node) -> Node:
    """Return the sampler whose latent *sampler* refines, if any, and so on."""
    seen = {sampler.id}
    while True:
        latent = graph.link(sampler, "latent_image")
        before = (node for node in graph.upstream(latent) if _is_sampler(node)) if latent else ()
        nearest = next(iter(before), None)
        if nearest is None or nearest.id in seen:
            return sampler
        seen.add(nearest.id)
        sampler = nearest


class _SamplerReader:
    """Reads what one sampler was given, by itself or by the nodes that are linked to it."""

    def __init__(self, graph: Graph, sampler: Node) -> None:
        self._graph = graph
        self._sampler = sampler
        self._texts = Texts(graph)
        self._notes: list[Pair] = []

    def describe(self) -> Description:
        """Return all that is found.

        Raises:
            FluxdropError: Kind ``prompt``, when the prompt is not found.
        """
        parts = self._parts()
        prompt = self._prompt(parts, "positive") or self._prompt(parts, "conditioning") or ""
        negative = self._prompt(parts, "negative") or ""
        kinds = [part.kind for part in parts]
        sampler = next((_SAMPLER_NODES[kind] for kind in kinds if kind in _SAMPLER_NODES), None)
        schedule = next((_SCHEDULE_NODES[kind] for kind in kinds if kind in _SCHEDULE_NODES), None)
        model, tags = self._model(parts)
        pairs = [
            ("Steps", self._value(parts, "steps")),
            ("Sampler", sampler or self._value(parts, "sampler_name")),
            ("Schedule type", schedule or self._value(parts, "scheduler")),
            ("CFG scale", self._value(parts, "cfg")),
            ("Distilled CFG Scale", self._texts.guidance),
            ("Seed", self._value(parts, "noise_seed", "seed")),
            *self._size(),
            ("Model", model),
        ]
        self._note_unexpressed()
        denoise = self._value(parts, "denoise")
        if isinstance(denoise, int | float) and denoise < 1:
            self._notes.append(("Denoising strength", str(denoise)))
        written = [(key, str(value)) for key, value in pairs if value is not None]
        notes = [*self._notes, *(("ComfyUI's node", kind) for kind in self._texts.passed)]
        return Description(" ".join([prompt, *tags]), negative, written + notes)

    def _parts(self) -> list[Node]:
        """Return the sampler and the nodes that hold its settings: the noise, guider, sampler and sigmas."""
        parts = [self._sampler]
        for key in ("noise", "guider", "sampler", "sigmas"):
            node = self._graph.link(self._sampler, key)
            # SplitSigmas and the like take sigmas, and give some of them.
            while node is not None and node not in parts:
                parts.append(node)
                node = self._graph.link(node, "sigmas")
        return parts

    def _value(self, parts: list[Node], *keys: str) -> str | float | None:
        """Return the first of the values *keys* that one of *parts* has; note one that cannot be followed."""
        for node in parts:
            for key in keys:
                value = self._graph.value(node, key)
                if isinstance(value, str | int | float) and not isinstance(value, bool):
                    return value
                self._note_lost(node, key)
        return None

    def _note_lost(self, node: Node, key: str) -> None:
        """Note that the value *key* of *node* is not known, if it is linked to a node that does not hold it."""
        value = node.inputs.get(key)
        if not isinstance(value, list):
            return
        target = self._graph.target(value)
        source = f"{target.kind} ({target.id})" if target else "a node that is not there"
        random = "; it is random" if key in ("seed", "noise_seed") else ""
        self._notes.append((f"ComfyUI's {key}", f"not known as it comes from {source}{random}"))

    def _note_unexpressed(self) -> None:
        """Note the nodes before the sampler that change the model, the texts' encoder or the batch."""
        for node in self._graph.upstream(self._sampler):
            if _UNEXPRESSED.search(node.kind):
                self._texts.passed[node.kind] = None
        start, end = (self._graph.value(self._sampler, f"{k}_at_step") for k in ("start", "end"))
        steps = self._graph.value(self._sampler, "steps")
        if isinstance(start, int) and start > 0:
            self._notes.append(("ComfyUI's start_at_step", str(start)))
        if isinstance(end, int) and isinstance(steps, int) and end < steps:
            self._notes.append(("ComfyUI's end_at_step", str(end)))

    def _prompt(self, parts: list[Node], key: str) -> str | None:
        """Return the text that the input *key* of one of *parts* comes from; None if there is no such input."""
        for node in parts:
            if key in node.inputs:
                text = self._texts.conditioning(node, key)
                if text is None:
                    raise FluxdropError(
                        f"ComfyUI's graph cannot be followed from the {key} input of {node.kind} to"
                        f" a text: {self._texts.lost_at}.",
                        hint="Write a prompt file with the prompt and the parameters.",
                        kind="prompt",
                    )
                text = from_comfyui(text)
                return _averaged(text) if self._texts.combines else text
        return None

    def _size(self) -> list[tuple[str, str]]:
        """Return the size of the latent with which the sampler began, and note what else it began with."""
        latent = self._graph.link(self._sampler, "latent_image")
        begun = len(self._notes)
        for node in self._graph.upstream(latent) if latent else ():
            batch = self._graph.value(node, "batch_size")
            if isinstance(batch, int) and batch > 1:
                self._notes.append(("ComfyUI's batch_size", str(batch)))
            for keys in _WIDTHS:
                if not all(key in node.inputs for key in keys):
                    continue
                sides = []
                for key, side in zip(keys, ("Width", "Height"), strict=True):
                    value = self._graph.value(node, key)
                    if isinstance(value, int | float):
                        sides.append((side, f"{value:.0f}"))
                    else:
                        self._note_lost(node, key)
                if sides:
                    return sides
            resolution = self._graph.value(node, "resolution")
            if isinstance(resolution, str) and (match := _RESOLUTION.fullmatch(resolution)):
                return [("Size", f"{match[1]}x{match[2]}")]
            image = node.inputs.get("image")
            if isinstance(image, str):
                self._notes.append(("Made from the picture", image))
            if self._graph.linked(node) and not _PASSING_LATENTS.search(node.kind):
                self._texts.passed[node.kind] = None
        if isinstance(self._sampler.inputs.get("latent_image"), list) and begun == len(self._notes):
            kind = f"from {latent.kind} ({latent.id})" if latent else "a node that is not there"
            self._notes.append(("ComfyUI's size", f"not known as it comes {kind}"))
        return []

    def _model(self, parts: list[Node]) -> tuple[str | None, list[str]]:
        """Return the model's name, and a tag for each LoRA that was applied to it."""
        start = next((n for n in (self._graph.link(part, "model") for part in parts) if n), None)
        tags: list[str] = []
        for node in self._graph.upstream(start) if start else ():
            found = _tags(self._graph, node)
            tags[:0] = found
            if self._graph.link(node, "model") and not found and node.kind != "Reroute":
                self._texts.passed[node.kind] = None
            names = (self._graph.value(node, key) for key in _MODEL_KEYS)
            name = next((name for name in names if isinstance(name, str)), None)
            if name is not None:
                return file_stem(name), tags
        return None, tags


def _averaged(prompt: str) -> str:
    """Return a *prompt* of parts between ``AND`` with equal weights: ComfyUI averages them, webui adds them up."""
    parts = prompt.split(" AND ")
    return " AND ".join(f"{part} :{1 / len(parts):.6g}" for part in parts) if parts[1:] else prompt


def _tags(graph: Graph, node: Node) -> list[str]:
    """Return the tags for the LoRAs that *node* applies; rgthree's loader has several."""
    if isinstance(name := graph.value(node, "lora_name"), str):
        weight = graph.value(node, "strength_model")
        if weight is None:
            # Efficient Loader
            weight = graph.value(node, "lora_model_strength")
        found: Iterator[str | None] = iter([lora_tag(name, 1 if weight is None else weight)])
    else:
        several = (value for value in node.inputs.values() if isinstance(value, dict))
        found = (
            lora_tag(one.get("lora"), one.get("strength", 1)) for one in several if one.get("on")
        )
    return [tag for tag in found if tag is not None]
