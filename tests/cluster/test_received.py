"""What comes back from a host is checked before it is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO

import msgspec
import pytest
from PIL import Image

from fluxdrop.cluster.messages import MadeOutcome, pack_outcome, unpack_outcome
from fluxdrop.cluster.received import checked_images
from fluxdrop.generate.messages import GeneratedImage, pack_images
from fluxdrop.processes.wire import WireError
from support.jobs import GENERATED

MAX_PIXELS = 64 * 64


def picture(width: int = 64, height: int = 64) -> GeneratedImage:
    """A picture as a host sends it."""
    written = BytesIO()
    Image.new("RGB", (width, height)).save(written, format="PNG")
    made = msgspec.structs.replace(GENERATED, width=width, height=height)
    return GeneratedImage(written.getvalue(), made)


def digest(image: GeneratedImage) -> str:
    """The digest that the host sends with it."""
    return hashlib.sha256(image.png).hexdigest()


def test_whole_pictures() -> None:
    """Whole pictures pass, in their order."""
    images = [picture(), picture(32, 16)]
    digests = [digest(image) for image in images]

    assert images == checked_images(pack_images(images), digests, 2, MAX_PIXELS)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda png: png[:-20], "no whole PNG"),
        (lambda png: png[:60] + b"?" + png[61:], "no whole PNG"),
        (lambda png: b"GIF89a" + png, "no whole PNG"),
        (lambda png: png + bytes(2 << 20), "bytes for 4096 pixels"),
    ],
)
def test_spoilt_png(spoil: Callable[[bytes], bytes], reason: str) -> None:
    """What is no whole PNG, or is much too large for its pixels, is not taken, though its digest is right."""
    image = GeneratedImage(spoil(picture().png), picture().generated)

    with pytest.raises(WireError, match=reason):
        checked_images(pack_images([image]), [digest(image)], 1, MAX_PIXELS)


def test_wrong_facts() -> None:
    """Another digest, another number of pictures, another size than the PNG's, and too many pixels are refused."""
    image, large = picture(), picture(64, 65)
    lying = GeneratedImage(image.png, msgspec.structs.replace(image.generated, width=32, height=32))

    for images, digests, count, reason in (
        ([image], ["0" * 64], 1, "other bytes"),
        ([image], [digest(image)], 2, "1 pictures"),
        ([image], [], 1, "0 digests"),
        ([lying], [digest(lying)], 1, "a PNG of"),
        ([large], [digest(large)], 1, "more than max_pixels"),
    ):
        with pytest.raises(WireError, match=reason):
            checked_images(pack_images(images), digests, count, MAX_PIXELS)


@pytest.mark.parametrize("payload", [b"", b"\0\0\0\0", b"\xff\xff\xff\xffx", b"\2\0\0\0{}"])
def test_malformed_outcome(payload: bytes) -> None:
    """An outcome without its head is refused."""
    with pytest.raises(WireError, match="without a head"):
        unpack_outcome(payload)


def test_outcome() -> None:
    """An outcome travels with its pictures' bytes."""
    made = MadeOutcome(run="a", sha256=["b"])

    assert (made, b"pictures") == unpack_outcome(pack_outcome(made, b"pictures"))
