"""Prompts in JSON."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.prompt_file import read_prompts

EXPECTED: dict[str, Any] = {
    "prompt": "a red circle",
    "negative_prompt": "blurry",
    "steps": 20,
    "seed": 42,
    "guidance_scale": 3.5,
    "width": 64,
    "height": 48,
}


@pytest.mark.parametrize(
    "data",
    [
        EXPECTED,
        {
            "prompt": "a red circle",
            "negative_prompt": "blurry",
            "num_inference_steps": 20,
            "guidance_scale": 3.5,
            "width": 64,
            "height": 48,
            "seed": 42,
        },
        {
            "Prompt": "a red circle",
            "Negative prompt": "blurry",
            "Steps": 20,
            "CFG scale": "3.5",
            "Seed": "42",
            "Size": "64x48",
        },
        {
            "prompt": "a red circle",
            "negative_prompt": "blurry",
            "steps": 20.0,
            "cfg_scale": 3.5,
            "seed": 42.0,
            "size": [64, 48],
        },
        {
            "inputs": "a red circle",
            "parameters": {
                "negative_prompt": "blurry",
                "num_inference_steps": 20,
                "guidance_scale": 3.5,
                "width": 64,
                "height": 48,
                "seed": 42,
            },
        },
    ],
)
def test_objects(data: dict[str, Any]) -> None:
    """The keys of infotext, of diffusers and of stable-diffusion-webui's API are read."""
    for text in (json.dumps(data), json.dumps(data, indent=2) + "\n", "\ufeff" + json.dumps(data)):
        ((parameters, warnings),) = read_prompts(text)

        assert {key: getattr(parameters, key) for key in EXPECTED} == EXPECTED
        assert [] == warnings


@pytest.mark.parametrize(
    ("data", "sampler"),
    [
        ({"sampler": "dpmpp_2m", "scheduler": "karras"}, "DPM++ 2M Karras"),
        ({"sampler_name": "DPM++ 2M", "schedule_type": "Karras"}, "DPM++ 2M Karras"),
        ({"scheduler": "dpmpp_2m_k"}, "DPM++ 2M Karras"),
        ({"scheduler": "EulerDiscreteScheduler"}, "EulerDiscreteScheduler"),
        ({"sampler": None}, None),
    ],
)
def test_samplers(data: dict[str, Any], sampler: str | None) -> None:
    """A scheduler is the schedule beside a sampler, and the sampler itself without one."""
    ((parameters, _warnings),) = read_prompts(json.dumps({"prompt": "a cat", **data}))

    assert sampler == parameters.sampler


def test_texts_are_not_parsed_again() -> None:
    """What looks like parameters within a prompt in JSON is part of that prompt, and named in warnings."""
    prompt = "a cat\nNegative prompt: a dog\nSteps: 3, Seed: 1, Size: 8x8"
    ((parameters, warnings),) = read_prompts(json.dumps({"prompt": prompt}))

    assert (prompt, "", None, 2) == (
        parameters.prompt,
        parameters.negative_prompt,
        parameters.steps,
        len(warnings),
    )


def test_unknown_keys() -> None:
    """Keys that are not used are named with their values."""
    ((_parameters, warnings),) = read_prompts(
        '{"prompt": "a cat", "clip_skip": 2, "hires": {"scale": 2}}'
    )

    assert ['Not used of the parameters: clip_skip: 2, hires: {"scale": 2}.'] == warnings


@pytest.mark.parametrize(
    "text",
    [
        '[{"prompt": "a cat", "seed": 1}, {"prompt": "a dog", "seed": 2}]',
        '{"prompt": "a cat", "seed": 1}\n{"prompt": "a dog", "seed": 2}\n',
        '```json\n[{"prompt": "a cat", "seed": 1}, {"prompt": "a dog", "seed": 2}]\n```\n',
        '{"prompt": "a cat", "seed": 1}\n---\na dog\nSeed: 2',
        '{"prompt": "a cat", "seed": 1}\n---\n{"prompt": "a dog", "seed": 2}',
    ],
)
def test_several_objects(text: str) -> None:
    """A list of objects, one object a line, and dashes are several prompts."""
    assert [("a cat", 1), ("a dog", 2)] == [
        (one.parameters.prompt, one.parameters.seed) for one in read_prompts(text)
    ]


def test_batch() -> None:
    """Several pictures of one prompt have seeds that count on."""
    pictures = read_prompts('{"prompt": "a cat", "seed": 5, "num_images_per_prompt": 3}')

    assert [5, 6, 7] == [one.parameters.seed for one in pictures]


@pytest.mark.parametrize(
    "text", ["{a|b} cat", "{red|blue}", "[a|b]", "[a cat]", '{"red"|"blue"}', 'a {"b": 1}', '["a"]']
)
def test_braces_of_prompts(text: str) -> None:
    """Braces and brackets that are not JSON are a prompt."""
    ((parameters, _warnings),) = read_prompts(text)

    assert text == parameters.prompt


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"prompt": "a cat"', "It begins like JSON, but is not valid: line 1, column 19:"),
        ('{"prompt": "a cat",}', "It begins like JSON, but is not valid: line 1, column"),
        ("{'prompt': 'a cat'}", "It begins like JSON, but is not valid: line 1, column 2"),
        ("{prompt: a cat}", "It begins like JSON, but is not valid: line 1, column 2"),
        ('{"prompt": "a" "b"}', "It begins like JSON, but is not valid: line 1, column"),
        ('{"prompt": ' + "[" * 100_000, "It begins like JSON, but is not valid:"),
        (
            '{"prompt": "a cat", "seed": ' + "1" * 5000 + "}",
            "It begins like JSON, but is not valid",
        ),
        ("{}", 'The JSON object has no "prompt".'),
        ('{"steps": 3}', 'The JSON object has no "prompt".'),
        ('{"prompt": 3}', '"prompt" is 3, not a text.'),
        ('{"prompt": ["a", "b"]}', '"prompt" is ["a", "b"], not a text.'),
        ('{"prompt": "a", "num_inference_steps": "many"}', '"num_inference_steps" is many, not a'),
        ('{"prompt": "a", "seed": true}', '"seed" is true, not a number.'),
        ('{"prompt": "a", "sampler": 3}', '"sampler" is 3, not a name.'),
        ('{"prompt": "a", "size": "large"}', '"size" is large, not a width and a height.'),
        ('{"prompt": "a", "steps": 0}', "Steps is 0; must be 1 to 1000."),
        ('{"prompt": "a", "steps": 2.5}', "Steps is '2.5', not a whole number"),
        ('[{"prompt": "a"}, 3]', "A prompt in JSON has to be an object."),
        ('{"nodes": [], "links": []}', "This is a workflow of ComfyUI"),
    ],
)
def test_refused(text: str, sentence: str) -> None:
    """JSON that is no prompt, or has a value of the wrong type, is refused with its key."""
    with pytest.raises(FluxdropError) as caught:
        read_prompts(text)

    assert str(caught.value).startswith(sentence)
    assert "prompt" == caught.value.kind


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
keys = st.sampled_from(
    [
        "prompt",
        "steps",
        "seed",
        "size",
        "sampler",
        "scheduler",
        "model",
        "loras",
        "loraweights",
        "width",
        "uc",
    ]
)


@given(st.dictionaries(keys | st.text(max_size=5), values, max_size=8))
def test_any_object(data: dict[str, Any]) -> None:
    """Any object is read, or refused as a prompt."""
    with contextlib.suppress(FluxdropError):
        for one in read_prompts(json.dumps({"prompt": "a cat", **data})):
            one.parameters.prompt.encode()


def test_list_of_texts() -> None:
    """A list of texts is several prompts; what only begins like one is a prompt."""
    texts = [picture.parameters.prompt for picture in read_prompts('["a red circle", "a star"]')]
    ((alone, _warnings),) = read_prompts('["a" circle]')

    assert ["a red circle", "a star"] == texts
    assert '["a" circle]' == alone.prompt


@pytest.mark.parametrize(
    ("text", "steps", "named"),
    [
        ('{"prompt": "a", "steps": 5, "steps": 9}', 9, "other steps: 5"),
        (
            '{"prompt": "a", "num_inference_steps": 5, "steps": 9}',
            9,
            "other num_inference_steps: 5",
        ),
    ],
)
def test_two_values_for_one(text: str, steps: int, named: str) -> None:
    """Of two values for one parameter, the one that is not used is named."""
    ((parameters, (warning,)),) = read_prompts(text)

    assert steps == parameters.steps
    assert named in warning
