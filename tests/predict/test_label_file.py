"""Lists of labels as people have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.label_file import labels_of, read_labels

CAT_DOG_BIRD = ["cat", "dog", "bird"]


def written(folder: Path, data: str | bytes, name: str = "labels.txt") -> Path:
    """A file with *data*."""
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    "data",
    [
        "cat\ndog\nbird\n",
        "cat\r\ndog\r\nbird\r\n",
        "cat\rdog\rbird\r",
        "\n  cat \n\ndog\t\nbird",
        b"\xef\xbb\xbfcat\ndog\nbird",
        "cat\r\ndog\r\nbird\r\n".encode("utf-16"),
        "cat\ndog\nbird".encode("utf-16-le"),
        b"\xfe\xff" + "cat\ndog\nbird".encode("utf-16-be"),
        "0 cat\n1 dog\n2 bird",
        "2 bird\n0 cat\n1 dog",
        "0: cat\n1: dog\n2: bird",
        "0\tcat\n1\tdog\n2\tbird",
        "0,cat\n1,dog\n2,bird",
        "0. cat\n1. dog\n2. bird",
        "n02121808 cat\nn02084071 dog\nn01503061 bird",
        "0 n02121808 cat\n1 n02084071 dog\n2 n01503061 bird",
        '["cat", "dog", "bird"]',
        '{"0": "cat", "1": "dog", "2": "bird"}',
        '{"2": "bird", "0": "cat", "1": "dog"}',
        '{"0": ["n02121808", "cat"], "1": ["n02084071", "dog"], "2": ["n01503061", "bird"]}',
        '[["n02121808", "cat"], ["n02084071", "dog"], ["n01503061", "bird"]]',
        "{0: 'cat', 1: 'dog',\n 2: 'bird'}",
        '{"cat": 0, "bird": 2, "dog": 1}',
        '[{"id": 2, "name": "bird"}, {"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]',
        '{"model_type": "vit", "id2label": {"0": "cat", "1": "dog", "2": "bird"}}',
        "index,label\n0,cat\n1,dog\n2,bird\n",
        '"id","name"\r\n"0","cat"\r\n"1","dog"\r\n"2","bird"\r\n',
        "index,mid,display_name\n0,/m/01yrx,cat\n1,/m/0bt9lr,dog\n2,/m/015p6,bird\n",
        "name;id\nbird;2\ncat;0\ndog;1\n",
    ],
)
def test_forms(tmp_path: Path, data: str | bytes) -> None:
    """Lines, numbered lines, JSON and tables in any order, UTF-8 and UTF-16, all give the same labels."""
    assert (CAT_DOG_BIRD, []) == read_labels(written(tmp_path, data))


@pytest.mark.parametrize(
    "data", ["cat,0\ndog,1\nbird,2\n", "label\ncat\ndog\nbird\n", "cat,dog,bird", "cat\ndog\nbird"]
)
def test_tables_by_their_name(tmp_path: Path, data: str) -> None:
    """A .csv may be without a header, without numbers, or one line."""
    assert (CAT_DOG_BIRD, []) == read_labels(written(tmp_path, data, "labels.csv"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("tench, Tinca tinca\ngoldfish", ["tench, Tinca tinca", "goldfish"]),
        ("1 euro\n2 euro", ["1 euro", "2 euro"]),
        ("0 euro\n1 euro", ["0 euro", "1 euro"]),
        ("5 euro\n10 euro", ["5 euro", "10 euro"]),
        ("3D printer\n2 CV", ["3D printer", "2 CV"]),
        ("n01440764\nn01443537", ["n01440764", "n01443537"]),
        ('"a, b"\nc', ['"a, b"', "c"]),
        ("[0, 1]", ["0", "1"]),
    ],
)
def test_what_stays(tmp_path: Path, data: str, expected: list[str]) -> None:
    """A number or a comma that is part of a name stays in it."""
    assert (expected, []) == read_labels(written(tmp_path, data))


def test_names_that_occur_twice(tmp_path: Path) -> None:
    """The second label of a name is told by its number, and a warning names both lines."""
    names = [f"class {number}" for number in range(1000)]
    names[134] = names[517] = "crane"
    names[638] = names[639] = "maillot"

    labels, warnings = read_labels(written(tmp_path, "\n".join(names)))

    assert ["crane", "crane (517)", "maillot", "maillot (639)"] == [
        labels[number] for number in (134, 517, 638, 639)
    ]
    assert 1000 == len(set(labels))
    assert [
        "line 135 and line 518 of labels.txt are both crane; the second is called crane (517)",
        "line 639 and line 640 of labels.txt are both maillot; the second is called maillot (639)",
    ] == warnings


def test_names_that_occur_twice_and_are_taken() -> None:
    """A label that is called as the second of another would be keeps its name."""
    labels, warnings = labels_of("a,a,a,a (2)")

    assert (["a", "a (1)", "a (2) (2)", "a (2)"], 2) == (labels, len(warnings))
    assert "label 1 and label 2 are both a; the second is called a (1)" == warnings[0]


def test_numbers_in_warnings_of_json(tmp_path: Path) -> None:
    """In JSON, which has no lines that matter, a warning names the numbers."""
    data = json.dumps({"0": "missile", "1": "bird", "2": "missile"})

    _, warnings = read_labels(written(tmp_path, data, "labels.json"))

    assert [
        "number 0 and number 2 of labels.json are both missile; the second is called missile (2)"
    ] == warnings


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "it has none"),
        (b"\xff\xfe", "it has none"),
        (b"\x80\x81\x82", "neither UTF-8 nor UTF-16"),
        (b"cat\0\0dog", "it is not text"),
        ('["cat", "dog"', "it is not valid JSON"),
        ('["cat", 1.5]', "1.5 is not a label"),
        ('["cat", null]', "null is not a label"),
        ('[{"a": 1}]', "its objects have no name"),
        ('{"a": "b"}', "it has no map from numbers to names"),
        ('{"0": "cat", "0": "dog"}', "it has '0' twice"),
        ('{"0": "cat", "00": "dog"}', "the number 0 has two names"),
        ('{"0": "cat", "2": "dog"}', "its numbers are 0 to 2, and 1 is missing"),
        ('{"1": "cat", "2": "dog"}', "its numbers are 1 to 2, and 0 is missing"),
        ('{"cat": 0, "dog": 0}', "the number 0 has two names"),
        ("2 cat\n1 dog\n3 bird", "its numbers are 1 to 3 and not in order"),
        ("index,label\n1,cat\n2,dog", "its numbers are 1 to 2, and 0 is missing"),
        ("index,a,b\n0,c,d\n1,e,f", "which of its columns has the labels: index, a, b"),
        ("index,label\n0,cat\n1,dog,x", "its lines have different numbers of cells"),
        ("file,label\na.png,cat\nb.png,cat\nc.png,cat", "that is a list of pictures"),
    ],
)
def test_refusals(tmp_path: Path, data: str | bytes, words: str) -> None:
    """What does not say which name is which is refused by the file's name, with what to do."""
    path = written(tmp_path, data)

    with pytest.raises(FluxdropError) as caught:
        read_labels(path)

    assert f"{path} cannot be read as a list of labels: " in caught.value.message
    assert (True, True) == (words in caught.value.message, bool(caught.value.hint))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat,dog", ["cat", "dog"]),
        (" cat , w/o dog", ["cat", "w/o dog"]),
        ("cat", ["cat"]),
        ("0,1", ["0", "1"]),
    ],
)
def test_labels_of_the_command_line(text: str, expected: list[str]) -> None:
    """What is no file's name is the labels themselves."""
    assert (expected, []) == labels_of(text)


@pytest.mark.parametrize("text", ["labels.txt", "lists/birds", "~/labels.json", "./a"])
def test_a_file_that_does_not_exist(text: str) -> None:
    """The name of a file that does not exist is not a label."""
    with pytest.raises(FluxdropError, match="There is no file "):
        labels_of(text)
