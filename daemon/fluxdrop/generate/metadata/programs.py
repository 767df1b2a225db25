"""The infotext in a picture's texts, from whichever program wrote them."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.metadata.json_prompt import describe, load_json
from fluxdrop.generate.metadata.picture_texts import EXIF_MODEL, USER_COMMENT, XMP
from fluxdrop.generate.metadata.weight_syntax import TRANSLATIONS
from fluxdrop.generate.parameter_lines import divide

# Facts that InvokeAI and others write beside the parameters, and that change no picture.
_FACTS = {
    *("app_version", "generation_mode", "rand_device", "metadata_scheme", "version", "created_by"),
    *("full_prompt", "full_negative_prompt", "signed_hash", "request_type"),
}
_BRACKETED = re.compile(r"\[([^\[\]]*)\]")
_FLAT = (
    "negative_prompt",
    "Negative Prompt",
    "num_inference_steps",
    "guidance_scale",
    "Guidance Scale",
)


def infotext_in(texts: Mapping[str, str]) -> str | None:
    """Return the infotext in a picture's *texts*, or make it from what another program wrote; None if there is none.

    Raises:
        FluxdropError: Kind ``prompt``, when a program's data cannot be read; the message begins with its name.
    """
    if (text := texts.get("parameters", "")).strip():
        value = _object(text)
        return text if value is None else _read(_program(value), value)
    if (text := texts.get(USER_COMMENT, "")).strip():
        value = _object(text)
        if value is not None:
            return _read(_program(value), value)
        # Cameras write comments here, too.
        if divide(text).pairs:
            return text
    if text := texts.get("invokeai_metadata", ""):
        return _read("InvokeAI", text)
    if text := texts.get("sd-metadata", ""):
        return _read("InvokeAI", _old_invokeai(text))
    if (value := _object(texts.get("Comment", ""))) is not None:
        if "prompt" not in value and texts.get("Description"):
            value["prompt"] = texts["Description"]
        return _read("NovelAI" if "uc" in value else _program(value), value)
    if (value := _object(texts.get("prompt", ""))) is not None:
        return _read("ComfyUI", value)
    if any(key in texts for key in _FLAT) and ("prompt" in texts or "Prompt" in texts):
        return _read(
            "Easy Diffusion", {k: v for k, v in texts.items() if k not in (XMP, "workflow")}
        )
    if (value := _object(_user_comment(texts.get(XMP, "")))) is not None:
        return _read("Draw Things", value)
    model = texts.get(EXIF_MODEL, "")
    if (value := _object(model.removeprefix("prompt:"))) is not None:
        return _read("SwarmUI" if "sui_image_params" in value else "ComfyUI", value)
    return None


def _user_comment(xmp: str) -> str:
    """Return EXIF's user comment in *xmp*, where Draw Things writes JSON; an empty string if there is none."""
    _before, _tag, rest = xmp.partition("<exif:UserComment>")
    _before, _tag, rest = rest.partition("<rdf:li")
    _attributes, _end, rest = rest.partition(">")
    return html.unescape(rest.partition("</rdf:li>")[0]).strip()


def _read(program: str, value: Any) -> str:
    """Return the infotext of what *program* wrote: a decoded *value*, or JSON."""
    try:
        if isinstance(value, str):
            value = load_json(value)
        if isinstance(value, dict):
            value = {key: item for key, item in value.items() if key not in _FACTS}
        description = describe(value)
        if (translate := TRANSLATIONS.get(program)) is not None:
            description = description._replace(
                prompt=translate(description.prompt),
                negative_prompt=translate(description.negative_prompt),
            )
        return description.infotext()
    except FluxdropError as error:
        raise FluxdropError(
            f"What {program} wrote cannot be read: {error.message}", hint=error.hint, kind="prompt"
        ) from error
    except ValueError as error:
        raise FluxdropError(
            f"What {program} wrote cannot be read: {error}", kind="prompt"
        ) from error


def _program(value: Mapping[str, Any]) -> str:
    """Return the name of the program that writes such JSON as ``parameters``."""
    if "sui_image_params" in value:
        return "SwarmUI"
    return "Fooocus" if "fooocus_scheme" in value or "performance" in value else "the program"


def _object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that *text* is; None if it is not one."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = load_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _old_invokeai(text: str) -> Any:
    """Return the parameters in the JSON that InvokeAI 2 wrote."""
    value = _object(text) or {}
    image = value.get("image")
    if not isinstance(image, dict):
        return value
    prompts = image.get("prompt")
    if isinstance(prompts, list):
        found = [one.get("prompt") for one in prompts if isinstance(one, dict)]
        image = image | {"prompt": " ".join(str(text) for text in found)}
    # There, what is in square brackets is the negative prompt (ldm/invoke/conditioning.py, get_uc_and_c_and_ec).
    prompt = image.get("prompt")
    if isinstance(prompt, str) and (negative := _BRACKETED.findall(prompt)):
        kept = " ".join(_BRACKETED.sub(" ", prompt).split())
        image = image | {"prompt": kept, "negative_prompt": " ".join(negative)}
    return image | {"model": value.get("model_weights")}
