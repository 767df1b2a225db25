"""Read metadata.json of Teachable Machine, which its export for TensorFlow.js has.

Its pictures are the squares in the middle that ImageOps.fit of Pillow takes, from -1 to 1 (the code that its export for
Keras shows).
"""

from __future__ import annotations

from pathlib import Path

from fluxdrop.predict.origin.facts import Facts, class_names, read_json

METADATA = "metadata.json"


def read(folder: Path) -> Facts | None:
    """Return what the folder's metadata.json says; None if it has none of Teachable Machine.

    Raises:
        FluxdropError: Kind ``model``, when the file cannot be read.
    """
    values = read_json(folder / METADATA)
    if values is None or "teachablemachine" not in str(values.get("packageName", "")):
        return None
    facts = Facts()
    labels = class_names(values.get("labels"))
    if labels:
        facts.name_classes(labels, f"{METADATA}: labels")
    side = values.get("imageSize", 224)
    if isinstance(side, int) and side > 0:
        facts.take("size", [side, side], f"{METADATA}: imageSize")
    source = f"{METADATA}: Teachable Machine's models are such"
    for key, value in {
        "resize": "fit",
        "filter": "lanczos",
        "scale": 127.5,
        "mean": [1.0],
        "std": [1.0],
    }.items():
        facts.take(key, value, source)
    return facts
