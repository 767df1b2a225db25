"""What the embedded pipeline draws for every colour and shape that it knows."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fluxdrop.generate.generator import GenerationOrder, Generator
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import to_tensor
from support.needs import needs_generation

pytestmark = pytest.mark.slow

COLOURS = [
    "red",
    "green",
    "blue",
    "yellow",
    "orange",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
    "gray",
]
ROUND = ["circle", "ellipse", "ring"]
ANGULAR = ["square", "triangle", "diamond", "pentagon", "hexagon", "star", "cross"]


@needs_generation
def test_colours_and_shapes(generator: Generator, tmp_path: Path) -> None:
    """Of eleven colours times ten shapes, drawn by prompt, the binary classifier takes at least 97 %
    for the class of their shape."""
    bundle = load_bundle("round-or-angular")
    prompts = {
        f"a {colour} {shape} on a {'black' if colour == 'white' else 'white'} background": (
            "round" if shape in ROUND else "angular"
        )
        for colour, shape in itertools.product(COLOURS, ROUND + ANGULAR)
    }
    orders = [
        GenerationOrder(PromptParameters(prompt=prompt, seed=seed))
        for seed, prompt in enumerate(prompts)
    ]
    # In runs of several, which take half the time of as many runs.
    made = [
        one
        for first in range(0, len(orders), 55)
        for one in generator.generate(orders[first : first + 55])
    ]
    engine = OnnxruntimeEngine(bundle)
    wrong = []
    picture = tmp_path / "picture.png"
    for order, one, expected in zip(orders, made, prompts.values(), strict=True):
        picture.write_bytes(one.png)
        image, _ = open_picture(picture, max_file_bytes=10**7, max_pixels=10**6)
        probabilities = label_probabilities(
            engine.predict(to_tensor(image, bundle.spec.input))[0], bundle
        )
        if max(probabilities, key=lambda label: probabilities[label]) != expected:
            wrong.append(order.parameters.prompt)

    assert 110 == len(orders)
    assert len(wrong) / len(orders) <= 0.03, wrong
