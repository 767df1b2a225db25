"""The JSON of results and failures, and its schema."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jsonschema
import msgspec
import pytest

from fluxdrop.files.layout import Root
from fluxdrop.predict.answer import Answer
from fluxdrop.publish.outcome import build_record, done
from fluxdrop.records import schema
from fluxdrop.records.result import Result, decode, encode
from support import jobs

SCHEMA = json.loads(schema.FILE.read_bytes())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def record(root: Root, source: str, **options: Any) -> dict[str, Any]:
    """The JSON of a job with the input *source*, by its kind done or failed."""
    job = jobs.job_in(jobs.claimed(root, source))
    finished = jobs.ended(job) if not options else jobs.done(job, **options)
    parsed: dict[str, Any] = json.loads(encode(build_record(finished, "NAME")))
    return parsed


def test_schema_is_made_of_the_classes() -> None:
    """The schema in the package is what the classes make (python -m fluxdrop.records.schema)."""
    assert schema.text() == schema.FILE.read_text()


def test_schema_is_sound() -> None:
    """The schema itself is a JSON Schema of the draft that it names."""
    jsonschema.validators.validator_for(SCHEMA).check_schema(SCHEMA)


@pytest.mark.parametrize("source", ["cat.txt", "cat.png", "cat.pdf", "日本/\u202fcat 1.png"])
def test_records_fit_the_schema(root: Root, source: str) -> None:
    """The records of a prompt, a picture and a failure are valid."""
    found = record(root, source)

    assert [] == list(VALIDATOR.iter_errors(found))
    assert source == found["source"]["file"]


def test_undecodable_name_fits_the_schema(root: Root) -> None:
    """A name with bytes that are no UTF-8 and with control characters is shown in the record."""
    job = jobs.job_in(jobs.claimed(root, b"caf\xe9\n.png"))

    found = json.loads(encode(build_record(jobs.done(job), "NAME")))

    assert [] == list(VALIDATOR.iter_errors(found))
    assert "caf\ufffd\ufffd.png" == found["source"]["file"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status",), "maybe"),
        (("schema_version",), 3),
        (("job_id",), None),
        (("source", "kind"), "film"),
        (("source", "sha256"), "ABC"),
        (("image", "width"), "64"),
        (("preprocessed", "jpeg_scale"), 0),
        (("preprocessed", "jpeg_scale"), 9),
        (("probabilities", "round"), 1.5),
        (("top", 0, "p"), -0.1),
        (("attempts",), None),
        (("attempts",), 2**64 - 1),
        (("attempts",), -1),
        (("source", "file"), ""),
        (("source", "file"), "a\0b"),
        (("source", "file"), "a" * 4097),
    ],
)
def test_wrong_records_do_not_fit(root: Root, path: tuple[str | int, ...], value: object) -> None:
    """The schema and the reader both refuse what is no result."""
    found = record(root, "cat.png")
    place: Any = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value

    assert not VALIDATOR.is_valid(found)
    with pytest.raises(msgspec.ValidationError):
        decode(json.dumps(found).encode())


@pytest.mark.parametrize(
    "data",
    [
        b'{"status":"failed","job_id":"a\xff"}',
        b'{"status":"failed","job_id":"\\ud800"}',
        b'{"status":"failed","a":' + b"[" * 100_000,
        b"[" * 100_000,
        b"",
        b"\xff\xfe",
    ],
)
def test_bytes_that_are_no_record(data: bytes) -> None:
    """Whatever bytes there are where a record is expected, they are refused as such."""
    with pytest.raises(msgspec.DecodeError):
        decode(data)


@pytest.mark.parametrize("key", ["source", "image", "model", "probabilities", "top", "created"])
def test_missing_parts_do_not_fit(root: Root, key: str) -> None:
    """A result without one of its parts is not valid."""
    found = record(root, "cat.png")
    del found[key]

    assert not VALIDATOR.is_valid(found)


@pytest.mark.parametrize("source", ["cat.txt", "cat.png", "cat.pdf"])
def test_round_trip(root: Root, source: str) -> None:
    """A record that is written and read is the same, a seed of 64 bits included."""
    made = build_record(jobs.ended(jobs.job_in(jobs.claimed(root, source))), "NAME")

    assert made == decode(encode(made))


def test_facts_of_a_prompt(root: Root) -> None:
    """A prompt's record tells the prompt, all its parameters and what made the picture."""
    found = record(root, "sub/cat.txt")

    assert ("a red circle", 2**64 - 1, "DDIM", "shapes-diffusion") == (
        found["prompt"],
        found["generation"]["seed"],
        found["generation"]["sampler"],
        found["generator"]["model"],
    )
    assert "generated_images/NAME.png" == found["image"]["file"]


def test_facts_of_a_picture(root: Root) -> None:
    """A picture's record has nothing of a generator; it tells the engine and why it is that one."""
    found = record(root, "cat.png")

    assert (None, None, None) == (found["prompt"], found["generation"], found["generator"])
    facts = {key: found["model"][key] for key in ("engine", "julia", "flux", "backend", "note")}
    assert facts == {
        "engine": "julia",
        "julia": "1.5.3",
        "flux": None,
        "backend": "plain",
        "note": "no Flux",
    }


def test_best_labels_first(root: Root) -> None:
    """top has the five most probable labels, best first, with their places in the output."""
    job = jobs.job_in(jobs.claimed(root, "cat.png"))
    picture = jobs.picture(job)
    probabilities = {f"label {n}": p for n, p in enumerate([0.1, 0.05, 0.4, 0.15, 0.2, 0.1])}

    answer = Answer("classification", probabilities)
    best = build_record(done(job, picture, jobs.BUNDLE, jobs.ENGINE, answer), "NAME")

    assert isinstance(best, Result)
    assert [2, 4, 3, 0, 5] == [guess.index for guess in best.top]


def test_for_people_too(root: Root) -> None:
    """A record is indented text with its letters as they are, and ends with a line feed."""
    made = build_record(jobs.ended(jobs.job_in(jobs.claimed(root, "é.pdf"))), "NAME")
    text = encode(made).decode()

    assert ('{\n  "status": "failed",\n', "\n}\n") == (text[:24], text[-3:])
    assert '"file": "é.pdf"' in text


MANY_THREADS = """
import sys, threading
from fluxdrop.records.result import decode
sys.setswitchinterval(1e-6)
data = sys.stdin.buffer.read()
barrier = threading.Barrier(8)
threads = [threading.Thread(target=lambda: (barrier.wait(), decode(data))) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_first_records_of_many_threads(root: Root) -> None:
    """Threads that read the first records of a process at the same moment do not crash it."""
    data = json.dumps(record(root, "cat.txt")).encode()

    codes = {
        subprocess.run([sys.executable, "-c", MANY_THREADS], input=data, check=False).returncode
        for _ in range(15)
    }

    assert {0} == codes
