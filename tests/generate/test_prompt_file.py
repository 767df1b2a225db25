"""What a prompt file asks for: one picture, a batch, several prompts."""

from __future__ import annotations

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.prompt_file import MAX_PICTURES, is_divided, read_prompts

STEPS = "Steps: 8, Seed: 42"


def asked(text: str) -> list[tuple[str, int | None]]:
    """The prompt and the seed of each picture."""
    return [(parameters.prompt, parameters.seed) for parameters, _warnings in read_prompts(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [("a cat", None)]),
        ("a cat\n---\na dog", [("a cat", None), ("a dog", None)]),
        ("---\na cat\n\n---\r\n \n--- \na dog\n---\n", [("a cat", None), ("a dog", None)]),
        ("a cat --- a dog\n----\nblue", [("a cat --- a dog\n----\nblue", None)]),
        (f"a cat\n{STEPS}, Batch size: 3", [("a cat", 42), ("a cat", 43), ("a cat", 44)]),
        (f"a cat\n{STEPS}, Batch size: 3, Batch pos: 1", [("a cat", 42)]),
        (
            f"a cat\nSteps: 8, Seed: {2**64 - 1}, Batch size: 2",
            [("a cat", 2**64 - 1), ("a cat", 0)],
        ),
    ],
)
def test_pictures(text: str, expected: list[tuple[str, int | None]]) -> None:
    """Lines of three dashes divide prompts, and a batch counts its seeds on."""
    assert expected == asked(text)


def test_drawn_seeds_of_a_batch() -> None:
    """A batch without a seed has one drawn for its first picture, from which the others count on."""
    first, second, third = (seed for _prompt, seed in asked("a cat\nSteps: 8, Batch size: 3"))

    assert first is not None
    assert (first + 1, first + 2) == (second, third)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The prompt is empty."),
        (" \n---\n", "The prompt is empty."),
        ("a cat\n---\na dog\nSteps: 0", "Prompt 2 of 2: Steps is 0; must be 1 to 1000."),
        (
            "\n---\n".join(["a cat\nSteps: 8, Batch size: 100"] * 11),
            f"The file asks for 1,100 pictures or more; at most {MAX_PICTURES:,} here.",
        ),
    ],
)
def test_refused(text: str, sentence: str) -> None:
    """A file with a prompt that cannot be is refused whole, with the number of the prompt."""
    with pytest.raises(FluxdropError) as caught:
        read_prompts(text)

    assert sentence in caught.value.message or sentence == str(caught.value)[: len(sentence)]


@pytest.mark.parametrize(("text", "is_so"), [("a\n---\nb", True), ("a --- b", False)])
def test_is_divided(text: str, is_so: bool) -> None:
    """A line of three dashes is known from dashes in a line."""
    assert is_so == is_divided(text)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("a __colour__ cat", "Wildcards are not supported: __colour__ is drawn as it stands."),
        ("a __a/b-c*__ cat", "Wildcards are not supported: __a/b-c*__ is drawn as it stands."),
        ("a {red|blue} cat", "Variants are not supported: {red|blue} is drawn as it stands."),
        ("{2$$red|blue}", "Variants are not supported: {2$$red|blue} is drawn as it stands."),
        (
            "a [cat:dog:0.5]",
            "Prompt editing is not supported: [cat:dog:0.5] is drawn as it stands.",
        ),
        ("a [dog:10] run", "Prompt editing is not supported: [dog:10] is drawn as it stands."),
        (
            "a <random:red,blue> cat",
            "SwarmUI's tags are not supported: <random:red,blue> is drawn as it stands.",
        ),
        (
            "a cat --seed 42",
            "Options such as Midjourney's are not supported: --seed 42 is drawn as it stands.",
        ),
        ("a [cat|dog]", "Alternating words are not supported: [cat|dog] is drawn as it stands."),
    ],
)
def test_syntax_that_stays_text(text: str, warning: str) -> None:
    """What only other programs replace stays in the prompt, with a warning that says so."""
    (wanted,) = read_prompts(text)

    assert (text, [warning]) == (wanted.parameters.prompt, wanted.warnings)


@pytest.mark.parametrize(
    "text",
    [
        "snake__case",
        "a ____ b",
        "{red}",
        "a | b",
        r"a \[cat|dog\]",
        "[a cat]",
        "at 10:30",
        "a -- b",
        "<lora:x>",
    ],
)
def test_text_that_is_no_syntax(text: str) -> None:
    """Ordinary text has no such warning."""
    (wanted,) = read_prompts(text)

    assert [] == wanted.warnings
