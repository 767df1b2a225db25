"""Where a picture goes: the size that it is scaled to, and the part of the result that the model sees.

Every way of resizing scales the whole picture and then takes a window of the model's size. Where the window is larger
than the scaled picture, background shows.
"""

from __future__ import annotations

from typing import NamedTuple

from fluxdrop.preprocess.spec import InputSpec

Size = tuple[int, int]
"""Width and height."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class Placement(NamedTuple):
    """A scaled picture, and the window that is taken of it."""

    scaled: Size
    """The size that the picture is scaled to."""
    left: int
    """The window's first column in the scaled picture; negative where background precedes the picture."""
    top: int
    """The window's first row, in the same way."""

    def visible(self, window: Size) -> tuple[int, int, int, int]:
        """Return the part of the scaled picture in a *window* of this size: left, top, right, bottom."""
        return (
            max(0, self.left),
            max(0, self.top),
            min(self.scaled[0], self.left + window[0]),
            min(self.scaled[1], self.top + window[1]),
        )


def place(size: Size, spec: InputSpec) -> Placement:
    """Return the placement of a picture of this *size*, as *spec* says."""
    scaled = _scaled(size, spec)
    left, top = (
        _offset(inner, outer, spec) for inner, outer in zip(scaled, spec.size, strict=True)
    )
    return Placement(scaled, left, top)


def source_of(size: Size, spec: InputSpec) -> tuple[Box, Size]:
    """Return which part of a picture of this *size* is scaled as *spec* says, and the size that it is scaled to."""
    width, height = size
    scaled = _scaled(size, spec)
    if spec.resize != "fit":
        return (0.0, 0.0, float(width), float(height)), scaled
    if spec.resampler in ("torch", "opencv"):
        left, top, right, bottom = middle(size, scaled)
        return (float(left), float(top), float(right), float(bottom)), scaled
    # ImageOps.fit of Pillow does not round.
    inner = min(width, height * scaled[0] / scaled[1]), min(height, width * scaled[1] / scaled[0])
    x, y = (width - inner[0]) / 2, (height - inner[1]) / 2
    return (x, y, x + inner[0], y + inner[1]), scaled


def middle(size: Size, target: Size) -> tuple[int, int, int, int]:
    """Return the largest part in the middle of a picture of this *size* with the aspect ratio of *target*.

    It is left, top, right and bottom, in whole pixels, as in smart_resize of keras/src/utils/image_utils.py.
    """
    width = min(size[0], max(1, size[1] * target[0] // target[1]))
    height = min(size[1], max(1, size[0] * target[1] // target[0]))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def _scaled(size: Size, spec: InputSpec) -> Size:
    to = spec.size if spec.resize_to is None else spec.resize_to
    square = isinstance(to, int)
    target = (to, to) if isinstance(to, int) else (to[0], to[1])
    if spec.resize in ("stretch", "fit"):
        return target
    if spec.resize == "letterbox":
        return _fit(size, target, spec)
    if spec.resampler == "torchvision" and not square and target[0] != target[1]:
        # torchvision has no such resize. timm's, ResizeKeepRatio of timm/data/transforms.py, rounds.
        ratio = min(size[0] / target[0], size[1] / target[1])
        return round(size[0] / ratio), round(size[1] / ratio)
    # Resize(int) of torchvision (_compute_resized_output_size) and shortest_edge of transformers
    # (get_resize_output_image_size) both round the longer side down.
    if target[0] * size[1] > size[0] * target[1]:
        return target[0], size[1] * target[0] // size[0]
    return size[0] * target[1] // size[1], target[1]


def _fit(size: Size, target: Size, spec: InputSpec) -> Size:
    """Return *size* scaled to fit into *target*; of the thinnest line, one pixel stays."""
    if spec.resampler == "torchvision":
        # ResizeKeepRatio(longest=1) of timm/data/transforms.py.
        ratio = max(size[0] / target[0], size[1] / target[1])
        return max(1, round(size[0] / ratio)), max(1, round(size[1] / ratio))
    scale = min(target[0] / size[0], target[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _offset(inner: int, outer: int, spec: InputSpec) -> int:
    """Return where a window of *outer* pixels begins in a picture of *inner* pixels."""
    if inner < outer and spec.pad == "corner":
        return 0
    if spec.resampler == "torchvision" and inner > outer:
        # CenterCrop of torchvision/transforms/functional.py rounds halves to even numbers.
        return round((inner - outer) / 2)
    if inner < outer and (spec.resampler.startswith("torch") or spec.resize == "letterbox"):
        return -((outer - inner) // 2)
    # center_crop of transformers/image_transforms.py.
    return (inner - outer) // 2
