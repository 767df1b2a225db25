"""Convert pictures to tensors, and tensors back to pictures for display."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps

from fluxdrop.preprocess import opencv, torch_uint8
from fluxdrop.preprocess.deep import Deep
from fluxdrop.preprocess.geometry import Placement, middle, place, source_of
from fluxdrop.preprocess.reduced import Reduced
from fluxdrop.preprocess.spec import InputSpec

_MAX_SIDE = 1 << 16
_MAX_SCALED_PIXELS = 1 << 24


def to_tensor(image: Image.Image | Deep | Reduced, spec: InputSpec) -> NDArray[np.float32]:
    """Resize and normalise *image* as *spec* says; return float32, a batch of one in the spec's layout."""
    return normalise([fit(image, spec)], spec)


@overload
def fit(image: Image.Image, spec: InputSpec) -> Image.Image: ...
@overload
def fit(image: Image.Image | Deep | Reduced, spec: InputSpec) -> Image.Image | Deep: ...
def fit(image: Image.Image | Deep | Reduced, spec: InputSpec) -> Image.Image | Deep:
    """Return *image* without transparency, in the size of *spec*, in mode L or RGB.

    This is the model's input before it is normalised.
    """
    if isinstance(image, Deep):
        return _fit_deep(image, spec)
    if isinstance(image, Reduced):
        return _fit_reduced(image, spec)
    return _resize(_remove_alpha(image, spec), spec, spec.background)


def _fit_deep(image: Deep, spec: InputSpec) -> Deep:
    """Resize each channel as floats, so that no depth is lost."""
    background = ImageColor.getrgb(spec.background)[:3]
    mode = "L" if spec.mode == "L" else "RGB"
    behind = np.asarray(Image.new("RGB", (1, 1), background).convert(mode))
    bands = [
        np.asarray(_resize(Image.fromarray(band), spec, colour))
        for band, colour in zip(
            image.opaque_bands(mode, background), behind.ravel().tolist(), strict=True
        )
    ]
    return Deep(np.clip(np.stack(bands, axis=-1), 0, 255), 255)


def _fit_reduced(reduced: Reduced, spec: InputSpec) -> Image.Image:
    """Resize what was decoded so that each part of the picture comes to where it would have come of all pixels."""
    image = _remove_alpha(reduced.image, spec)
    placement = place(reduced.size, spec)
    box = placement.visible(spec.size)
    source, scaled = source_of(reduced.size, spec)
    x, y = (source[2] - source[0]) / scaled[0], (source[3] - source[1]) / scaled[1]
    part = (
        source[0] + box[0] * x,
        source[1] + box[1] * y,
        source[0] + box[2] * x,
        source[1] + box[3] * y,
    )
    # torch's arithmetic differs from Pillow's by less than the decoding does.
    seen = image.resize(
        (box[2] - box[0], box[3] - box[1]),
        Image.Resampling[spec.filter.upper()],
        box=reduced.box(part),
    )
    return _on_canvas(seen, placement, spec, spec.background)


def shown(seen: Image.Image | Deep | Reduced) -> Image.Image:
    """Return what `fit` returned, or what was decoded, as a picture for people, with 8 bits."""
    if isinstance(seen, Reduced):
        return seen.image
    return seen.eight_bit() if isinstance(seen, Deep) else seen


def normalise(images: Sequence[Image.Image | Deep], spec: InputSpec) -> NDArray[np.float32]:
    """Stack the *images*, which `fit` returned, into one normalised float32 batch in the spec's layout."""
    pixels = np.stack([_values(image, spec) for image in images]).astype(np.float32)
    if spec.mode == "BGR":
        pixels = pixels[..., ::-1]
    pixels /= np.float32(spec.scale)
    pixels -= np.asarray(spec.mean, dtype=np.float32)
    pixels /= np.asarray(spec.std, dtype=np.float32)
    if spec.layout == "NCHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels)


def _values(image: Image.Image | Deep, spec: InputSpec) -> NDArray[Any]:
    """Return the values of *image*, 0 to 255, in the shape (height, width, channels)."""
    values = image.pixels if isinstance(image, Deep) else np.asarray(image)
    return values.reshape(*values.shape[:2], spec.channels)


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


def _resize(image: Image.Image, spec: InputSpec, background: str | float) -> Image.Image:
    """Resize *image*, of mode L, RGB or F, in the way that *spec* names; *background* is Pillow's for its mode."""
    size = (spec.size[0], spec.size[1])
    if image.size == size and spec.resize_to is None:
        return image
    placement = place(image.size, spec)
    box = placement.visible(size)
    seen = _scaled(image, placement.scaled, box, spec)
    return _on_canvas(seen, placement, spec, background)


def _on_canvas(
    seen: Image.Image, placement: Placement, spec: InputSpec, background: str | float
) -> Image.Image:
    """Return the part of the scaled picture that is *seen*, with *background* around it in the size of *spec*."""
    size = (spec.size[0], spec.size[1])
    if seen.size == size:
        return seen
    canvas = Image.new(seen.mode, size, background)
    canvas.paste(seen, (max(0, -placement.left), max(0, -placement.top)))
    return canvas


def _scaled(
    image: Image.Image, scaled: tuple[int, int], box: tuple[int, int, int, int], spec: InputSpec
) -> Image.Image:
    """Return the part *box* of *image* resized to *scaled*, by the resampler and filter of *spec*."""
    # torchvision resizes floats without rounding, and so does Pillow.
    by_pillow = spec.resampler not in _RESIZE or (
        spec.resampler == "torch" and (spec.filter == "nearest" or image.mode == "F")
    )
    if spec.resize == "fit":
        if by_pillow:
            return ImageOps.fit(image, scaled, Image.Resampling[spec.filter.upper()]).crop(box)
        image = image.crop(middle(image.size, scaled))
    if by_pillow:
        return _pillow(image, scaled, box, Image.Resampling[spec.filter.upper()])
    return _RESIZE[spec.resampler](image, scaled, box, spec.filter)


def _pillow(
    image: Image.Image,
    scaled: tuple[int, int],
    box: tuple[int, int, int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """Return the part *box* of *image* resized to *scaled*."""
    left, top, right, bottom = box
    size = (right - left, bottom - top)
    if scaled[0] * scaled[1] <= max(_MAX_SCALED_PIXELS, 2 * size[0] * size[1]):
        whole = image if image.size == scaled else image.resize(scaled, resample)
        return whole if size == scaled else whole.crop(box)
    # Scaling all of a picture that is a thin line would take too much memory. Scaling only the part that is kept
    # differs by a rounding error; by more where a filter overshoots, as Pillow may then do the passes in another order.
    x, y = image.width / scaled[0], image.height / scaled[1]
    return image.resize(size, resample, box=(left * x, top * y, right * x, bottom * y))


_RESIZE = {"opencv": opencv.resize, "torch": torch_uint8.resize}
