"""Graphs of ComfyUI."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxdrop.errors import FluxdropError
from support.comfyui_graphs import (
    EXPECTED,
    Graph,
    advanced_with_refiner,
    classic,
    controlled,
    custom,
    custom_advanced,
    efficient,
    hires,
    linked_text,
    node,
    read,
    reroutes,
    sdxl,
    stuck_together,
    wrapped,
)


@pytest.mark.parametrize(
    "make",
    [
        classic,
        linked_text,
        reroutes,
        advanced_with_refiner,
        hires,
        custom,
        custom_advanced,
        sdxl,
        efficient,
        controlled,
        stuck_together,
        wrapped,
    ],
)
def test_graphs(make: Any) -> None:
    """The prompts, steps, seed, sampler, scale, size and model are found however the nodes are linked."""
    parameters, _warnings = read(make())

    assert parameters == EXPECTED


def test_flux() -> None:
    """FLUX's guidance goes before the scale, and a negative prompt that is zeroed out is none."""
    graph = classic(cfg=1, sampler_name="euler", scheduler="simple", positive=["60", 0]) | {
        "60": node("FluxGuidance", conditioning=["6", 0], guidance=3.5),
        "6": node("CLIPTextEncodeFlux", clip_l="circle", t5xxl="a red circle", guidance=2),
        "7": node("ConditioningZeroOut", conditioning=["6", 0]),
        "5": node("EmptySD3LatentImage", width=64, height=48, batch_size=1),
        "4": node("UNETLoader", unet_name="flux1-dev.gguf"),
    }
    parameters, _warnings = read(graph)

    assert ("a red circle", "", 3.5, "Euler Simple", "flux1-dev") == (
        parameters.prompt,
        parameters.negative_prompt,
        parameters.guidance_scale,
        parameters.sampler,
        parameters.pipeline,
    )


def test_basic_guider() -> None:
    """A guider without a negative prompt has its conditioning followed."""
    graph = custom_advanced() | {"34": node("BasicGuider", model=["4", 0], conditioning=["6", 0])}
    parameters, _warnings = read(graph)

    assert ("a red circle", "", None) == (
        parameters.prompt,
        parameters.negative_prompt,
        parameters.guidance_scale,
    )


def test_loras() -> None:
    """LoRAs on the way to the model become tags, in the order in which they are applied."""
    graph = classic(model=["71", 0]) | {
        "70": node(
            "LoraLoader", lora_name="x\\film.safetensors", strength_model=0.8, model=["4", 0]
        ),
        "71": node(
            "LoraLoaderModelOnly", lora_name="ink.safetensors", strength_model=1, model=["70", 0]
        ),
    }
    parameters, _warnings = read(graph)

    assert "a red circle <lora:film:0.8> <lora:ink:1>" == parameters.prompt


@pytest.mark.parametrize(
    ("kind", "keys", "prompt"),
    [
        (
            "ConditioningCombine",
            ("conditioning_1", "conditioning_2"),
            "a red circle :0.5 AND a star :0.5",
        ),
        (
            "ConditioningConcat",
            ("conditioning_to", "conditioning_from"),
            "a red circle BREAK a star",
        ),
    ],
)
def test_two_conditionings(kind: str, keys: tuple[str, str], prompt: str) -> None:
    """Conditionings that are combined or concatenated are both in the prompt."""
    graph = classic(positive=["80", 0]) | {
        "80": node(kind, **{keys[0]: ["81", 0], keys[1]: ["82", 0]}),
        "81": node("ConditioningSetArea", conditioning=["6", 0], width=8, height=8),
        "82": node("CLIPTextEncode", text="a star", clip=["4", 1]),
    }
    parameters, (warning,) = read(graph)

    assert prompt == parameters.prompt
    assert "ComfyUI's node: ConditioningSetArea" in warning


def test_what_is_not_expressed_is_named() -> None:
    """A second sampler, a picture to begin with and a partial denoising are in the warning."""
    graph = hires()
    graph["3"]["inputs"] |= {"latent_image": ["90", 0], "denoise": 0.6}
    graph |= {
        "90": node("VAEEncode", pixels=["91", 0], vae=["4", 2]),
        "91": node("LoadImage", image="cat.png"),
    }
    _parameters, (warning,) = read(graph)

    assert "Denoising strength: 0.6" in warning
    assert "Made from the picture: cat.png" in warning
    assert "ComfyUI's other samplers: KSampler (2)" in warning


@pytest.mark.parametrize(
    ("changed", "values", "expected"),
    [
        (
            {"seed": ["99", 0]},
            {"seed": None},
            "seed: not known as it comes from a node that is not",
        ),
        (
            {"seed": ["98", 0]},
            {"seed": None},
            "ComfyUI's seed: not known as it comes from MathExpression|pysssss (98); it is random",
        ),
        ({"steps": ["98", 0]}, {"steps": None}, "steps: not known as it comes from MathExpression"),
        ({"steps": ["92", 0]}, {"steps": None}, "steps: not known as it comes from Holder (92)"),
        ({"latent_image": ["91", 0]}, {"width": 64}, "ComfyUI's node: LatentUpscaleBy"),
        ({"cfg": ["98", 0]}, {"guidance_scale": None}, "cfg: not known as it comes from MathExp"),
        (
            {"latent_image": ["97", 0]},
            {"width": None, "height": 48},
            "width: not known as it comes from MathExpression",
        ),
        ({"latent_image": ["99", 0]}, {"width": None}, "size: not known as it comes"),
        ({"latent_image": ["96", 0]}, {"width": 64}, "ComfyUI's node: RepeatLatentBatch"),
        ({"model": ["95", 0]}, {"pipeline": "shapes"}, "ComfyUI's node: FreeU_V2"),
        ({"positive": ["94", 0]}, {}, "ComfyUI's node: CLIPSetLastLayer"),
        ({"start_at_step": 4}, {}, "start_at_step: 4"),
        ({"end_at_step": 12}, {}, "end_at_step: 12"),
    ],
)
def test_what_is_lost_is_named(
    changed: dict[str, Any], values: dict[str, Any], expected: str
) -> None:
    """A value that no node holds, and a node that infotext cannot express, are in the warning."""
    graph = classic(**changed) | {
        "98": node("MathExpression|pysssss", expression="a + 1", a=["5", 0], value=7),
        "97": node("EmptyLatentImage", width=["98", 0], height=48, batch_size=1),
        "96": node("RepeatLatentBatch", samples=["5", 0], amount=4),
        "95": node("FreeU_V2", model=["4", 0], b1=1.3),
        "94": node("CLIPTextEncode", text="a red circle", clip=["93", 0]),
        "92": node("Holder", value=5, a=["5", 0]),
        "91": node("LatentUpscaleBy", samples=["5", 0], scale_by=2.0),
        "93": node("CLIPSetLastLayer", clip=["4", 1], stop_at_clip_layer=-2),
    }
    parameters, (warning,) = read(graph)

    assert expected in warning
    assert "a red circle" == parameters.prompt
    assert values == {key: getattr(parameters, key) for key in values}


@pytest.mark.parametrize(
    "source",
    [
        node("StringReplace", string="a blue circle", find="blue", replace="red"),
        node("StringTrim", string=" a red circle ", mode="Both"),
        node("CaseConverter", string="A RED circle", mode="lowercase"),
    ],
)
def test_texts_that_are_changed(source: dict[str, Any]) -> None:
    """Simple changes of ComfyUI's own string nodes are done."""
    graph = classic() | {"6": node("CLIPTextEncode", text=["10", 0], clip=["4", 1]), "10": source}
    parameters, warnings = read(graph)

    assert ("a red circle", []) == (parameters.prompt, warnings)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("RegexReplace", {"string": "a cat", "regex_pattern": "c", "replace": "r"}),
        ("StringSubstring", {"string": "a cat", "start": 0, "end": 2}),
        ("RegexExtract", {"string": "a cat", "regex_pattern": "c"}),
        ("Text Find and Replace", {"text": "a cat", "find": "cat", "replace": "dog"}),
        ("DeepTranslatorTextNode", {"from_translate": "auto", "text": "eine Katze"}),
        ("FooocusPromptExpansion", {"text": "a cat", "seed": 1}),
        ("SDXLPromptStyler", {"text_positive": "a cat", "text_negative": "", "style": "neon"}),
        ("Load Styles CSV", {"styles": "neon"}),
        ("OllamaGenerateV2", {"prompt": "describe a cat", "system": "be brief"}),
        ("CaseConverter", {"string": "a cat", "mode": "other"}),
    ],
)
def test_texts_that_become_others(kind: str, given: dict[str, Any]) -> None:
    """A node that makes another text of its own is named; what it was given is never drawn."""
    graph = classic() | {"6": node("CLIPTextEncode", text=["10", 0]), "10": node(kind, **given)}

    with pytest.raises(FluxdropError, match=r"to a text: .* \(10\) changes the text"):
        read(graph)


def test_encoder_that_changes_its_text() -> None:
    """An encoder that translates is named, too."""
    graph = classic() | {"6": node("TranslateCLIPTextEncode", text="Katze", clip=["4", 1])}

    with pytest.raises(FluxdropError, match=r"TranslateCLIPTextEncode \(6\) changes the text"):
        read(graph)


def test_text_that_was_shown() -> None:
    """Where the source of a text cannot be followed, what a node showed of it is used, and named."""
    graph = classic() | {
        "6": node("CLIPTextEncode", text=["10", 0], clip=["4", 1]),
        "10": node("ShowText|pysssss", text=["11", 0], text_0="a red circle"),
        "11": node("OllamaGenerateV2", prompt="describe a circle"),
    }
    parameters, (warning,) = read(graph)

    assert "a red circle" == parameters.prompt
    assert "ShowText|pysssss" in warning


def test_lora_of_an_efficient_loader() -> None:
    """Its strength is that of the model."""
    graph = efficient()
    graph["4"]["inputs"] |= {"lora_name": "film.safetensors", "lora_model_strength": 0.5}
    graph["3"]["inputs"]["model"] = ["4", 0]

    assert "a red circle <lora:film:0.5>" == read(graph)[0].prompt


def looped() -> Graph:
    return classic() | {
        "6": node("CLIPTextEncode", text=["10", 0]),
        "10": node("StringConcatenate", string_a=["10", 0], string_b=["11", 0]),
        "11": node("Reroute", text=["10", 0]),
    }


def doubled() -> Graph:
    """Thirty nodes, each of which has the one before twice."""
    graph = classic(positive=["130", 0]) | {"100": classic()["6"]}
    for number in range(101, 131):
        before = [str(number - 1), 0]
        graph[str(number)] = node(
            "ConditioningConcat", conditioning_to=before, conditioning_from=before
        )
    return graph


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (
            looped(),
            "cannot be followed from the positive input of KSampler to a text: it goes in a",
        ),
        (doubled(), "cannot be followed from the positive input of KSampler to a text: "),
        (
            classic()
            | {"6": node("CLIPTextEncode", text=["10", 0]), "10": node("LLM", model="x", top=1)},
            "to a text: LLM writes its own.",
        ),
        (classic(positive=["99", 0]), "to a text: a link leads nowhere."),
        ({"4": node("CheckpointLoaderSimple", ckpt_name="x")}, "has no sampler"),
        (
            classic()
            | {
                "6": node("CLIPTextEncode", text=["11", 0]),
                "11": node("StringConcatenate", string_a="half", string_b=["10", 0]),
                "10": node("Poet", a=1),
            },
            "to a text: Poet (10) is not known.",
        ),
        (
            classic()
            | {
                "6": node("CLIPTextEncode", text=["10", 0]),
                "10": node("Poet", text="a cat", seed=1),
            },
            "to a text: Poet (10) is not known.",
        ),
    ],
)
def test_graphs_that_cannot_be_followed(graph: Graph, sentence: str) -> None:
    """A circle, an unknown node and half a text are one sentence, never half a prompt."""
    with pytest.raises(FluxdropError) as caught:
        read(graph)

    assert sentence in str(caught.value)


links = st.tuples(st.sampled_from([*"3456789", "10", "zz"]), st.integers(0, 3)).map(list)
inputs = st.dictionaries(
    st.sampled_from(
        [
            *(
                "positive",
                "negative",
                "latent_image",
                "model",
                "text",
                "conditioning",
                "seed",
                "steps",
            ),
            *(
                "conditioning_1",
                "conditioning_2",
                "string_a",
                "sampler",
                "sigmas",
                "guider",
                "width",
            ),
        ]
    ),
    links | st.integers() | st.text(max_size=4) | st.none() | st.lists(st.integers(), max_size=3),
    max_size=6,
)
kinds = st.sampled_from(
    ["KSampler", "CLIPTextEncode", "Reroute", "ConditioningCombine", "TextJoin"]
)
nodes = st.builds(lambda kind, given: node(kind, **given), kinds, inputs)


@given(st.dictionaries(st.sampled_from([*"3456789", "10"]), nodes, max_size=6))
def test_any_graph(changed: Graph) -> None:
    """Any graph is read, or refused with a sentence; nothing goes round for ever."""
    with contextlib.suppress(FluxdropError):
        read(classic() | changed)
