"""Weights in prompts, as stable-diffusion-webui means them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxdrop.generate.metadata.weight_syntax import from_comfyui, from_invokeai, from_novelai
from fluxdrop.generate.prompt_weights import parse_weights


def fragments(prompt: str) -> list[tuple[str, float]]:
    """The fragments of a prompt in one chunk."""
    ((chunks, weight),) = parse_weights(prompt).parts
    (chunk,) = chunks
    assert 1 == weight
    return [(text, round(weight, 6)) for text, weight in chunk]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("normal text", [("normal text", 1)]),
        ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
        ("a (red:1.3) circle", [("a ", 1), ("red", 1.3), (" circle", 1)]),
        ("a ((red)) circle", [("a ", 1), ("red", 1.21), (" circle", 1)]),
        ("a [red] circle", [("a ", 1), ("red", 0.909091), (" circle", 1)]),
        ("[[red]]", [("red", 0.826446)]),
        ("((red:1.3) circle)", [("red", 1.43), (" circle", 1.1)]),
        ("(red:0)", [("red", 0)]),
        ("(red: .5 )", [("red", 0.5)]),
        ("(red:-1)", [("red", -1)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("closed) too", [("closed) too", 1)]),
        (r"\(literal\] \\", [("(literal] \\", 1)]),
        (r"a\b", [("a\\b", 1)]),
        ("(unnecessary)(brackets)", [("unnecessarybrackets", 1.1)]),
        ("a photo: sharp, 10:30", [("a photo: sharp, 10:30", 1)]),
        ("(red:1.2.3)", [("red:1.2.3", 1.1)]),
        ("(10:30)", [("10", 30)]),
        ("a [cat:dog:0.5] (red)", [("a [cat:dog:0.5] ", 1), ("red", 1.1)]),
        ("a [cat|dog]", [("a [cat|dog]", 1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
    ],
)
def test_fragments(prompt: str, expected: list[tuple[str, float]]) -> None:
    """Brackets weight what they contain; the expectations are those of webui's own documentation."""
    assert expected == fragments(prompt)
    assert "".join(text for text, _weight in expected) == parse_weights(prompt).text


def test_break() -> None:
    """BREAK ends a chunk, within brackets, too, and white space around it is lost."""
    ((chunks, _weight),) = parse_weights("a cat BREAK\n(on white BREAK in snow:1.5) BREAKS").parts

    assert (
        (("a cat", 1.0),),
        (("on white", 1.5),),
        (("in snow", 1.5), (" BREAKS", 1.0)),
    ) == chunks


@pytest.mark.parametrize("prompt", ["BREAK a cat", "a cat BREAK", "BREAK BREAK a cat"])
def test_empty_chunks(prompt: str) -> None:
    """A chunk without text is none."""
    assert [("a cat", 1)] == fragments(prompt)


def test_and() -> None:
    """AND divides a prompt into parts, each of which may have a weight."""
    parsed = parse_weights("a (red) cat AND a dog :0.8 AND at 10:30 AND BRAND AND  ")

    assert [("a red cat", 1), ("a dog", 0.8), ("at 10", 30), ("BRAND", 1)] == [
        (part.text, part.weight) for part in parsed.parts
    ]
    assert not parsed.is_plain
    assert [("red", 1.1)] == parsed.weighted


def test_and_in_negative_prompts() -> None:
    """In a negative prompt AND is a word."""
    assert parse_weights("a cat AND a dog", composed=False).is_plain


@pytest.mark.parametrize("prompt", ["a cat", "", "a cat: 1.2", r"\(a cat\)", "()", "( )"])
def test_plain(prompt: str) -> None:
    """Without weights a prompt is plain."""
    assert parse_weights(prompt).is_plain


syntax = st.sampled_from([*"()[]:\\|", ":1.2)", "BREAK", "AND", " ", "a", "[a:b:0.5]", "(:1)"])


@given(st.lists(syntax, max_size=40).map("".join))
def test_any_prompt(prompt: str) -> None:
    """Any text is parsed, and no character that is not syntax is lost."""
    parsed = parse_weights(prompt)

    assert prompt.count("a") == parsed.text.count("a")


@pytest.mark.parametrize(
    "piece",
    ["(a", "[a", ")", "(a:", "BREAK ", "AND ", " ", "{|", "[:1", "__a", "\\", "(a:1)", "[a|b]"],
)
def test_long_prompts(piece: str) -> None:
    """A prompt of the largest size is parsed whatever is in it; what takes quadratic time would hang here."""
    assert parse_weights((piece * 65_536)[:65_536]).parts


@pytest.mark.parametrize(
    ("translate", "prompt", "expected"),
    [
        (from_invokeai, "a (red)1.3 circle", [("a ", 1), ("red", 1.3), (" circle", 1)]),
        (from_invokeai, "a red++ circle", [("a ", 1), ("red", 1.21), (" circle", 1)]),
        (from_invokeai, "a (red circle)--", [("a ", 1), ("red circle", 0.81)]),
        (from_invokeai, "a (red) circle, [x]", [("a (red) circle, [x]", 1)]),
        (from_invokeai, "a sci-fi city", [("a sci-fi city", 1)]),
        (
            from_novelai,
            "a {red} [blue] (x)",
            [("a ", 1), ("red", 1.05), (" ", 1), ("blue", 0.9524), (" (x)", 1)],
        ),
        (from_novelai, "{{red}}", [("red", 1.1025)]),
        (from_novelai, "a 1.3::red circle:: x", [("a ", 1), ("red circle", 1.3), (" x", 1)]),
        (from_comfyui, "a (red:1.3) [x]", [("a ", 1), ("red", 1.3), (" [x]", 1)]),
        (from_comfyui, r"a \(red\) \[x\]", [("a (red) [x]", 1)]),
    ],
)
def test_syntax_of_other_programs(
    translate: Callable[[str], str], prompt: str, expected: list[tuple[str, float]]
) -> None:
    """The weights of InvokeAI, NovelAI and ComfyUI mean here what they mean there."""
    assert expected == fragments(translate(prompt))
