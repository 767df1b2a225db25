"""Read the infotext that Stable Diffusion programs write into a PNG's text chunks."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files.durable import NotRegularError
from fluxdrop.files.regular import open_given
from fluxdrop.generate.infotext import quote

MAX_INFOTEXT_BYTES = 64 * 1024
"""The largest infotext that is read. A compressed chunk may unpack to far more than its size on the disk."""

# From InvokeAI's scheduler names (invokeai/backend/stable_diffusion/schedulers) to the usual sampler
# names. A trailing "_k" means Karras.
_INVOKEAI_SAMPLERS = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "deis": "DEIS",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "kdpm_2": "DPM2",
    "kdpm_2_a": "DPM2 a",
    "lcm": "LCM",
    "lms": "LMS",
    "pndm": "PLMS",
    "unipc": "UniPC",
}


def read_infotext(path: Path) -> str:
    """Return the infotext in the PNG *path*.

    That is the text chunk ``parameters``, which fluxdrop, AUTOMATIC1111, Forge and SD.Next write, or
    else it is made from InvokeAI's chunk ``invokeai_metadata``.

    Raises:
        FluxdropError: Kind ``png-info``, when the file or its infotext cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # Opening reads the chunks before the pixels, and Pillow limits what they unpack to.
        with open_given(path) as file, Image.open(file, formats=["PNG"]) as image:
            texts = {str(key): value for key, value in image.info.items()}
    except FileNotFoundError:
        raise _png_info_error(f"There is no file {path}") from None
    except UnidentifiedImageError:
        raise _png_info_error(f"{path} is not a PNG picture, or not a whole one") from None
    except NotRegularError as error:
        raise _png_info_error(f"{path} cannot be read: {error.strerror}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _png_info_error(f"{path} cannot be read: {error}") from error
    if isinstance(infotext := texts.get("parameters"), str):
        if len(infotext.encode("utf-8", "replace")) > MAX_INFOTEXT_BYTES:
            raise _png_info_error(
                f"{path} has more than {MAX_INFOTEXT_BYTES:,} bytes of parameters"
            )
        return infotext
    if isinstance(metadata := texts.get("invokeai_metadata"), str):
        return _from_invokeai(path, metadata)
    raise _png_info_error(
        f"{path} does not say how it was generated: it has no text chunk 'parameters'",
        "ComfyUI writes its workflow instead, which is not infotext.",
    )


class _InvokeAIModel(msgspec.Struct):
    name: str = ""


class _InvokeAI(msgspec.Struct):
    """The part of InvokeAI's metadata that infotext can express."""

    positive_prompt: str = ""
    negative_prompt: str | None = None
    steps: int | None = None
    scheduler: str | None = None
    cfg_scale: float | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    model: _InvokeAIModel | None = None


def _from_invokeai(path: Path, metadata: str) -> str:
    """Convert InvokeAI's JSON *metadata* to infotext."""
    try:
        if len(metadata) > MAX_INFOTEXT_BYTES:
            raise ValueError(f"it has more than {MAX_INFOTEXT_BYTES:,} characters")
        found = msgspec.json.decode(metadata.encode(), type=_InvokeAI)
    except ValueError as error:
        raise _png_info_error(f"What InvokeAI wrote into {path} cannot be read: {error}") from error
    pairs: list[tuple[str, object]] = [
        ("Steps", found.steps),
        ("Sampler", _sampler_name(found.scheduler)),
        ("CFG scale", found.cfg_scale),
        ("Seed", found.seed),
        ("Size", f"{found.width}x{found.height}" if found.width and found.height else None),
        ("Model", quote(found.model.name) if found.model and found.model.name else None),
    ]
    lines = [found.positive_prompt]
    if found.negative_prompt:
        lines.append(f"Negative prompt: {found.negative_prompt}")
    lines.append(", ".join(f"{key}: {value}" for key, value in pairs if value is not None))
    return "\n".join(lines)


def _sampler_name(scheduler: str | None) -> str | None:
    """Translate an InvokeAI scheduler to a sampler name."""
    if scheduler is None:
        return None
    is_karras = scheduler.endswith("_k")
    name = _INVOKEAI_SAMPLERS.get(scheduler.removesuffix("_k"), scheduler)
    return f"{name} Karras" if is_karras else name


def _png_info_error(message: str, hint: str = "") -> FluxdropError:
    return FluxdropError(message, hint=hint, kind="png-info")
