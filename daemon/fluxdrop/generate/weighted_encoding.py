"""Encode weighted prompts for a pipeline, as stable-diffusion-webui does.

The pipeline itself encodes the text; each token's embedding is then multiplied by its weight, and the whole by one
factor that restores the mean (``modules/sd_emphasis.py``, "Original", webui's default). Forge does the same with the T5
encoder of FLUX. This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fluxdrop.generate.prompt_weights import Chunk, Fragment, Part

# By pipeline class: the arguments of its call that `encode_prompt` returns, where None stands for one that is not used,
# and whether it takes several chunks, one behind the other.
_PIPELINES: dict[str, tuple[tuple[str | None, ...], bool]] = {
    "StableDiffusionPipeline": (("prompt_embeds", None), True),
    "StableDiffusionXLPipeline": (("prompt_embeds", None, "pooled_prompt_embeds", None), True),
    "StableDiffusion3Pipeline": (("prompt_embeds", None, "pooled_prompt_embeds", None), False),
    "FluxPipeline": (("prompt_embeds", "pooled_prompt_embeds", None), False),
}
_ENCODERS = (
    ("tokenizer", "text_encoder"),
    ("tokenizer_2", "text_encoder_2"),
    ("tokenizer_3", "text_encoder_3"),
)
_EMPTY: Chunk = (Fragment("", 1.0),)


Tensors = dict[str, torch.Tensor]
"""What a pipeline's call takes for prompts, by the arguments' names."""


class WeightedEncoder:
    """Encodes weighted prompts for *pipe*, if `takes_weights`."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._returned, self.takes_chunks = _PIPELINES[type(pipe).__name__]
        self._options = {
            key: value
            for key, value in (
                ("prompt_2", None),
                ("prompt_3", None),
                ("num_images_per_prompt", 1),
                ("do_classifier_free_guidance", False),
            )
            if key in inspect.signature(pipe.encode_prompt).parameters
        }

    def encode(self, part: Part, *, whole: bool) -> list[Tensors]:
        """Return the arguments for each chunk of *part*, in batches of one.

        If *whole*, a chunk that is longer than the encoder reads is divided; otherwise it is cut off, as the pipeline
        does it. A pipeline that takes no chunks gets all in one.
        """
        chunks: Sequence[Chunk] = part.chunks
        if not self.takes_chunks:
            chunks = [tuple(_joined(chunks))]
        elif whole:
            chunks = [piece for chunk in chunks for piece in self._divided(chunk)]
        return [self._encode_chunk(chunk) for chunk in chunks]

    def empty(self) -> Tensors:
        """Return the arguments for an empty chunk."""
        return self._encode_chunk(_EMPTY)

    @torch.no_grad()
    def _encode_chunk(self, chunk: Chunk) -> Tensors:
        text = "".join(fragment.text for fragment in chunk)
        with _weighting(self._pipe, chunk):
            returned = self._pipe.encode_prompt(
                prompt=text, device=self._pipe._execution_device, **self._options
            )
        return {
            name: tensor
            for name, tensor in zip(self._returned, returned, strict=True)
            if name is not None
        }

    def _divided(self, chunk: Chunk) -> Iterator[Chunk]:
        """Yield *chunk* in pieces that the first encoder reads whole, cut between its tokens.

        webui counts the tokens of the first encoder, too; those of the others are the same.
        """
        text = "".join(fragment.text for fragment in chunk)
        tokenizer = self._pipe.tokenizer
        spans = _spans(tokenizer, text)
        size = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
        cuts = [0, *(spans[n][0] for n in range(size, len(spans), size)), len(text)]
        for start, end in itertools.pairwise(cuts):
            yield tuple(_slice(chunk, start, end))


def takes_weights(pipe: Any) -> bool:
    """Return whether weighted prompts can be encoded for *pipe*."""
    tokenizers = [getattr(pipe, name, None) for name, _encoder in _ENCODERS]
    return type(pipe).__name__ in _PIPELINES and all(
        tokenizer is None or tokenizer.is_fast for tokenizer in tokenizers
    )


def takes_chunks(pipe: Any) -> bool:
    """Return whether *pipe* takes prompts in several chunks."""
    return takes_weights(pipe) and _PIPELINES[type(pipe).__name__][1]


@contextmanager
def _weighting(pipe: Any, chunk: Chunk) -> Iterator[None]:
    """Have the text encoders of *pipe* weight what they return for the text of *chunk*."""
    handles = []
    if any(fragment.weight != 1 for fragment in chunk):
        for tokenizer_name, encoder_name in _ENCODERS:
            tokenizer = getattr(pipe, tokenizer_name, None)
            encoder = getattr(pipe, encoder_name, None)
            if tokenizer is not None and encoder is not None:
                hook = _hook(_token_weights(tokenizer, chunk))
                handles.append(encoder.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(weights: list[float]) -> Callable[[Any, Any, Any], None]:
    """Return a forward hook that weights the tokens which an encoder returns; *weights* begins with the first token."""

    def weight_tokens(_module: Any, _inputs: Any, output: Any) -> None:
        if output.hidden_states is not None:
            # SDXL and SD3 take the last but one.
            output.hidden_states = tuple(_emphasised(z, weights) for z in output.hidden_states)
        output.last_hidden_state = _emphasised(output.last_hidden_state, weights)

    return weight_tokens


def _emphasised(z: torch.Tensor, weights: list[float]) -> torch.Tensor:
    """Return the embeddings *z*, [1, tokens, channels], weighted and with their former mean."""
    count = z.shape[1]
    if len(weights) > count:
        # The text was cut off, and the last token that is left ends it.
        weights = [*weights[: count - 1], 1.0]
    factors = torch.tensor(
        weights + [1.0] * (count - len(weights)), dtype=torch.float32, device=z.device
    ).reshape(1, count, 1)
    weighted = z.float() * factors
    restored = weighted * (z.float().mean() / weighted.mean())
    return (restored if bool(torch.isfinite(restored).all()) else weighted).to(z.dtype)


def _token_weights(tokenizer: Any, chunk: Chunk) -> list[float]:
    """Return the weight of each token of *chunk*'s text, with the special tokens before it."""
    text = "".join(fragment.text for fragment in chunk)
    by_character = [fragment.weight for fragment in chunk for _character in fragment.text]
    encoding = tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
    weights = []
    for start, end in encoding["offset_mapping"]:
        # A token may begin with the white space before its word.
        begin = next((n for n in range(start, end) if not text[n].isspace()), start)
        weights.append(by_character[begin] if start < end else 1.0)
    return weights


def _spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Return where each token of *text* begins and ends, without the special tokens."""
    encoding = tokenizer(
        text,
        return_offsets_mapping=True,
        add_special_tokens=False,
        truncation=False,
        verbose=False,
    )
    return list(encoding["offset_mapping"])


def _slice(chunk: Chunk, start: int, end: int) -> Iterator[Fragment]:
    """Yield the fragments of the characters *start* to *end*, the end excluded."""
    first = 0
    for text, weight in chunk:
        piece = text[max(start - first, 0) : max(end - first, 0)]
        if piece:
            yield Fragment(piece, weight)
        first += len(text)


def _joined(chunks: Sequence[Chunk]) -> Iterator[Fragment]:
    """Yield the fragments of all *chunks*, with a space between two."""
    for number, chunk in enumerate(chunks):
        if number:
            yield Fragment(" ", 1.0)
        yield from chunk
