"""Pictures into tensors, and back to look at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fluxdrop.preprocess.spec import InputSpec

_MOST_CROPPED = 8


def to_tensor(image: Image.Image, spec: InputSpec) -> NDArray[np.float32]:
    """The tensor that a model with *spec* sees of *image*: float32, a batch of one."""
    return normalise([fit(image, spec)], spec)


def fit(image: Image.Image, spec: InputSpec) -> Image.Image:
    """*image* in the size of *spec*, mode L or RGB: what a model sees before the numbers are normalised."""
    return _resized(_opaque(image, spec), spec)


def normalise(images: Sequence[Image.Image], spec: InputSpec) -> NDArray[np.float32]:
    """The tensor of what `fit` made of each picture: a batch of them all."""
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
    """The bytes of *tensor*'s .npy file."""
    return _npy_head(tensor.shape) + tensor.tobytes()


@cache
def _npy_head(shape: tuple[int, ...]) -> bytes:
    head = BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)
    return head.getvalue()


def to_preview(tensor: NDArray[np.float32], spec: InputSpec) -> Image.Image:
    """The picture in *tensor* (a batch of one): what the model saw, for a person to look at."""
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


def _opaque(image: Image.Image, spec: InputSpec) -> Image.Image:
    mode = "L" if spec.mode == "L" else "RGB"
    if image.mode in ("LA", "RGBA"):
        ground = Image.new("RGBA", image.size, spec.background)
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)


def _resized(image: Image.Image, spec: InputSpec) -> Image.Image:
    size = (spec.size[0], spec.size[1])
    resample = Image.Resampling[spec.filter.upper()]
    if image.size == size:
        return image
    if spec.resize == "stretch":
        return image.resize(size, resample)
    if spec.resize == "crop":
        return _cropped(image, size, resample)
    return _letterboxed(image, size, resample, spec.background)


def _cropped(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """The centre of *image* with its shorter side resized, in whole pixels as torchvision and transformers do it."""
    width, height = size
    if width * image.height > image.width * height:
        whole = (width, image.height * width // image.width)
    else:
        whole = (image.width * height // image.height, height)
    left, top = (whole[0] - width) // 2, (whole[1] - height) // 2
    box = (left, top, left + width, top + height)
    if whole[0] * whole[1] <= _MOST_CROPPED * width * height:
        return image.resize(whole, resample).crop(box)
    # The whole of a line of pixels would not fit into memory; its part is off by a rounding error.
    x, y = image.width / whole[0], image.height / whole[1]
    return image.resize(size, resample, box=(box[0] * x, box[1] * y, box[2] * x, box[3] * y))


def _letterboxed(
    image: Image.Image, size: tuple[int, int], resample: Image.Resampling, background: str
) -> Image.Image:
    scale = min(size[0] / image.width, size[1] / image.height)
    # Even of the thinnest line something is left.
    width, height = (max(1, round(side * scale)) for side in image.size)
    ground = Image.new(image.mode, size, background)
    place = ((size[0] - width) // 2, (size[1] - height) // 2)
    ground.paste(image.resize((width, height), resample), place)
    return ground
