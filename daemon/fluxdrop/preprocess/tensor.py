"""Convert pictures to tensors, and tensors back to pictures for display."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fluxdrop.preprocess.spec import InputSpec

_MAX_UNCROPPED_RATIO = 8


def to_tensor(image: Image.Image, spec: InputSpec) -> NDArray[np.float32]:
    """Resize and normalise *image* as *spec* says; return float32, a batch of one in the spec's layout."""
    return normalise([fit(image, spec)], spec)


def fit(image: Image.Image, spec: InputSpec) -> Image.Image:
    """Return *image* without transparency, in the size of *spec*, in mode L or RGB.

    This is the model's input before it is normalised.
    """
    return _resize(_remove_alpha(image, spec), spec)


def normalise(images: Sequence[Image.Image], spec: InputSpec) -> NDArray[np.float32]:
    """Stack the *images*, which `fit` returned, into one normalised float32 batch in the spec's layout."""
    pixels = np.stack([np.asarray(image) for image in images]).astype(np.float32)
    if spec.mode == "L":
        pixels = pixels[..., np.newaxis]
    elif spec.mode == "BGR":
        pixels = pixels[..., ::-1]
    pixels /= np.float32(spec.scale)
    pixels -= np.asarray(spec.mean, dtype=np.float32)
    pixels /= np.asarray(spec.std, dtype=np.float32)
    if spec.layout == "NCHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels)


def npy(tensor: NDArray[np.float32]) -> bytes:
    """Return *tensor* in the .npy format."""
    return _npy_header(tensor.shape) + tensor.tobytes()


@cache
def _npy_header(shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy file."""
    header = BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def to_preview(tensor: NDArray[np.float32], spec: InputSpec) -> Image.Image:
    """Return the picture that the model saw: the inverse of `normalise` for *tensor*, a batch of one."""
    values = tensor[0]
    if spec.layout == "NCHW":
        values = values.transpose(1, 2, 0)
    pixels = (values * np.asarray(spec.std) + np.asarray(spec.mean)) * spec.scale
    pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if spec.mode == "L":
        return Image.fromarray(pixels[..., 0])
    if spec.mode == "BGR":
        pixels = pixels[..., ::-1]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _remove_alpha(image: Image.Image, spec: InputSpec) -> Image.Image:
    """Put *image* on the background colour, and convert it to mode L or RGB."""
    mode = "L" if spec.mode == "L" else "RGB"
    if image.mode in ("LA", "RGBA"):
        canvas = Image.new("RGBA", image.size, spec.background)
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)


def _resize(image: Image.Image, spec: InputSpec) -> Image.Image:
    """Resize *image* in the way that *spec* names."""
    size = (spec.size[0], spec.size[1])
    resample = Image.Resampling[spec.filter.upper()]
    if image.size == size:
        return image
    if spec.resize == "stretch":
        return image.resize(size, resample)
    if spec.resize == "crop":
        return _center_crop(image, size, resample)
    return _letterbox(image, size, resample, spec.background)


def _center_crop(
    image: Image.Image, size: tuple[int, int], resample: Image.Resampling
) -> Image.Image:
    """Scale the shorter side of *image* to *size* and return the centre.

    Offsets and lengths are rounded down to whole pixels as torchvision and transformers do.
    """
    width, height = size
    if width * image.height > image.width * height:
        scaled = (width, image.height * width // image.width)
    else:
        scaled = (image.width * height // image.height, height)
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    box = (left, top, left + width, top + height)
    if scaled[0] * scaled[1] <= _MAX_UNCROPPED_RATIO * width * height:
        return image.resize(scaled, resample).crop(box)
    # Scaling all of a picture that is a thin line would take too much memory. Scaling only the part that
    # is kept differs by a rounding error.
    x, y = image.width / scaled[0], image.height / scaled[1]
    return image.resize(size, resample, box=(box[0] * x, box[1] * y, box[2] * x, box[3] * y))


def _letterbox(
    image: Image.Image, size: tuple[int, int], resample: Image.Resampling, background: str
) -> Image.Image:
    """Scale *image* to fit into *size*, and centre it on the background colour."""
    scale = min(size[0] / image.width, size[1] / image.height)
    # Keep at least one pixel of the thinnest line.
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new(image.mode, size, background)
    position = ((size[0] - width) // 2, (size[1] - height) // 2)
    canvas.paste(image.resize((width, height), resample), position)
    return canvas
