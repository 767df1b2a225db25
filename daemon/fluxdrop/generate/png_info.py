"""Read from a picture how it was generated, as infotext."""

from __future__ import annotations

from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.metadata.picture_texts import png_info_error, read_texts
from fluxdrop.generate.metadata.programs import infotext_in


def read_infotext(path: Path) -> str:
    """Return the infotext in the picture *path*, a PNG, JPEG or WebP.

    fluxdrop, AUTOMATIC1111, Forge and SD.Next write it; it is made from what ComfyUI, SwarmUI, Fooocus, InvokeAI,
    NovelAI, Draw Things and Easy Diffusion write.

    Raises:
        FluxdropError: Kind ``png-info``, when the file or its infotext cannot be read.
    """
    texts = read_texts(path)
    try:
        infotext = infotext_in(texts)
    except FluxdropError as error:
        message = error.message.replace(" wrote cannot", f" wrote into {path} cannot", 1)
        raise png_info_error(message, error.hint) from error
    if infotext is None:
        raise _nothing_found(path, "workflow" in texts)
    return infotext


def _nothing_found(path: Path, has_workflow: bool) -> FluxdropError:
    if has_workflow:
        return png_info_error(
            f"{path} does not say how it was generated: it has ComfyUI's workflow, but not its"
            " graph 'prompt'",
            "Open it in ComfyUI, and save the picture again.",
        )
    return png_info_error(
        f"{path} does not say how it was generated: no program's parameters are in it",
        "Many sites and editors remove them. What NovelAI hides in the transparency is not read.",
    )
