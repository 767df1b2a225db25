"""Results as earlier releases left them."""

from __future__ import annotations

import hashlib
import json

from fluxdrop.files.layout import Root

SUFFIXES = {"jpeg": ".jpg", "jpg": ".jpg", "webp": ".webp"}


def convert(root: Root, name: str, kind: str) -> None:
    """Make of the result NAME *name* of a dropped *kind* what 0.x made: a PNG of it, the dropped file beside that."""
    path = root.outputs / f"{name}.json"
    record = json.loads(path.read_bytes())
    image = f"image of {record['job_id']}".encode()
    (root.generated / f"{name}.{kind}").unlink()
    (root.generated / f"{name}.png").write_bytes(image)
    (root.outputs / f"{name}.png").hardlink_to(root.generated / f"{name}.png")
    (root.outputs / f"{name}.{kind}").rename(root.outputs / f"{name}{SUFFIXES[kind]}")
    record["image"] |= {
        "file": f"generated_images/{name}.png",
        "sha256": hashlib.sha256(image).hexdigest(),
    }
    del record["image"]["format"]
    path.write_text(json.dumps(record))
