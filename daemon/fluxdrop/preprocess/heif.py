"""Decode HEIF, also with the suffix .heic, by pillow-heif, which is an extra."""

from __future__ import annotations

from typing import IO

from fluxdrop.errors import FluxdropError
from fluxdrop.preprocess.decoded import Bounds, Decoded


def decode(file: IO[bytes], bounds: Bounds) -> Decoded:
    """Decode the main picture of a HEIF.

    Raises:
        FluxdropError: It is over the *bounds*, or pillow-heif is not installed. Besides, what pillow-heif raises.
    """
    try:
        import pillow_heif
    except ImportError:
        raise FluxdropError(
            f"{bounds.name} is a HEIF picture, which needs a package that is not installed",
            hint="Run: pip install 'fluxdrop[heif]', restart the daemon, and drop it once more.",
            kind="picture",
        ) from None
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.options.THUMBNAILS = False
    opened = pillow_heif.open_heif(file, convert_hdr_to_8bit=True)
    bounds.check(*opened.size)
    if len(opened) > 1:
        bounds.warn(f"It has {len(opened)} pictures: the main one was taken.")
    # libheif has turned it already.
    profile = opened.info.get("icc_profile") or b""
    return Decoded(opened.to_pillow(), profile)
