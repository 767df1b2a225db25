"""What nobody means well with, through a real daemon: each file ends, and the daemon lives."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import unicodedata
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fluxdrop.files.layout import Root
from fluxdrop.jobs.claim import make_place
from fluxdrop.records.result import Failure, Record, decode
from support.daemons import Daemon, every_file, failures, fluxdrop, results, serving
from support.mutations import mutated_bytes, mutated_pngs, small_picture
from support.needs import needs_generation

QUICK = {
    "engine": "onnxruntime",
    "settle_seconds": 0.1,
    "incomplete_seconds": 1,
    "scan_seconds": 1,
    "log_level": "error",
}


def drop(root: Root, files: dict[str, bytes]) -> None:
    """Move *files* into the inbox, each in one piece."""
    for name, data in files.items():
        part = root.path / "part"
        part.write_bytes(data)
        part.rename(root.inbox / name)


def unfinished(root: Root) -> int:
    """How many files and jobs there are left to do: a claim is never out of both folders."""
    return sum(1 for folder in (root.inbox, root.work) for _ in folder.iterdir())


def wait_for_all(daemon: Daemon) -> None:
    """Wait until nothing is left to do, as long as it becomes less."""
    while left := unfinished(daemon.root):
        is_less = partial(lambda most: unfinished(daemon.root) < most, left)
        daemon.wait_until(is_less, f"fewer than {left} to do")


def ended(root: Root, files: dict[str, bytes]) -> list[Record]:
    """The records of *files*: exactly one for each, of its contents, and with a reason if it failed."""
    records = [decode(path.read_bytes()) for path in root.outputs.rglob("*.json")]
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    sources = [(record.source.file, record.source.sha256) for record in records]
    assert sorted(digests.items()) == sorted(sources)
    for record in records:
        assert not isinstance(record, Failure) or record.error.message
    return records


def test_damaged_pictures(root: Root) -> None:
    """A PNG cut at every byte, 2,000 mutated PNGs and 400 JPEGs and WebPs each end as a result or
    as an error JSON beside the untouched file, in one daemon that stays alive.
    """
    whole = small_picture("PNG", "RGB")
    files = {f"cut {size}.png": whole[:size] for size in range(len(whole) + 1)}
    files |= {f"png {n}.png": data for n, data in enumerate(mutated_pngs(2000, seed=2026))}
    for suffix in ("jpeg", "webp"):
        mutated = mutated_bytes(small_picture(suffix, "RGB"), 200, seed=2026)
        files |= {f"{suffix} {n}.{suffix}": data for n, data in enumerate(mutated)}
    with serving(root, **QUICK) as daemon:
        drop(root, files)
        wait_for_all(daemon)
        code = daemon.stop()

    records = ended(root, files)
    kinds = Counter(
        (record.source.file.split()[0], isinstance(record, Failure)) for record in records
    )
    assert 0 == code
    assert {("cut", False): 1, ("cut", True): len(whole)} == {
        key: kinds[key] for key in kinds if key[0] == "cut"
    }
    assert min(kinds[kind, failed] for kind in ("png", "jpeg") for failed in (True, False)) > 20
    for record in records:
        if isinstance(record, Failure):
            name = record.source.file
            assert files[name] == (root.failed / name).read_bytes()


keys = st.sampled_from(
    ["Steps", "Sampler", "CFG scale", "Seed", "Size", "Batch size", "Model", "Schedule type", "x"]
)
values = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8),
    st.sampled_from(["0", "-1", "1e999", "nan", "8x8", "99999999x99999999", "64x64", '"', "Euler"]),
)
lines = st.lists(st.tuples(keys, values).map(": ".join), min_size=3, max_size=6).map(", ".join)
prompts = st.text(max_size=40)
bad_prompts = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.tuples(prompts, lines).map("\n".join).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([b"x" * 2000, b"\xff\xfe" + "a cat".encode("utf-16"), b"\xef\xbb\xbf", b"\0"]),
)
good_prompts = prompts.map(lambda text: f"cat {text}\nSteps: 1, Seed: 1, Size: 8x8".encode())


@needs_generation
def test_prompt_files(root: Root) -> None:
    """Dozens of prompt files that hypothesis made, of bytes, odd parameters and odd text, each end
    as a picture or as an error JSON, in one daemon that stays alive.
    """
    dropped: dict[str, bytes] = {}
    with serving(root, **QUICK, max_prompt_bytes=1000) as daemon:

        @settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate])
        @given(
            st.lists(bad_prompts, min_size=12, max_size=12, unique=True),
            st.lists(good_prompts, min_size=2, max_size=2),
        )
        def drop_them(bad: list[bytes], good: list[bytes]) -> None:
            files = {f"{len(dropped) + n}.txt": data for n, data in enumerate([*bad, *good])}
            dropped.update(files)
            drop(root, files)
            wait_for_all(daemon)

        drop_them()
        code = daemon.stop()

    records = ended(root, dropped)
    assert 0 == code
    assert {"done", "failed"} == {
        "failed" if isinstance(record, Failure) else "done" for record in records
    }


NAMES = [
    b"caf\xe9.png",
    b"line\nfeed.png",
    b"\x1b[31mred\x1b]0;title\x07.png",
    "exe.\u202egnp.png".encode(),
    "\N{FULLWIDTH SOLIDUS}etc\N{FRACTION SLASH}\N{CYRILLIC SMALL LETTER A}.png".encode(),
    b"-rf.png",
    b"a\\..\\..\\up.png",
    b"$(reboot);`reboot`.png",
    b"%s{0}[red].png",
    b"CON.png",
    b"dots...png",
    b" .png",
    b"x" * 251 + b".png",
    "日".encode() * 83 + b"xx.png",
    b"y" * 250 + b"\xff.png",
]


def test_names(root: Root) -> None:
    """Names with control characters, of odd bytes, of 255 bytes or with tricks of paths have their
    results inside outputs/, good files and bad ones, and nothing that is printed or logged of them
    moves a terminal.
    """
    picture = small_picture("PNG")
    outside = set(root.path.parent.iterdir())
    with serving(root, **QUICK) as daemon:
        for data in (picture, b"no picture", picture, b"no picture"):
            for name in NAMES:
                (root.path / "part").write_bytes(data)
                (root.path / "part").rename(root.inbox / os.fsdecode(name))
            wait_for_all(daemon)
        code = daemon.stop()
        log = daemon.log_text()
    printed = fluxdrop("status", "--root", root.path)
    printed_as_json = fluxdrop("status", "--json", "--root", root.path)

    assert 0 == code
    assert (2 * len(NAMES), 2 * len(NAMES)) == (len(results(root)), len(failures(root)))
    assert outside == set(root.path.parent.iterdir())
    assert [b"no picture"] * 2 * len(NAMES) == [
        path.read_bytes() for path in root.failed.iterdir() if path.suffix != ".json"
    ]
    # Exit code 3: no daemon runs any more.
    assert (3, 3) == (printed.returncode, printed_as_json.returncode)
    for text in (log, printed.stdout, printed_as_json.stdout):
        assert [] == [
            letter
            for letter in text
            if letter != "\n" and (unicodedata.category(letter) == "Cc" or letter == "\u202e")
        ]


def test_irregular(root: Root, tmp_path: Path) -> None:
    """Symlinks, FIFOs, sockets and devices are left alone and told of; a folder called x.png is a
    folder; nothing behind a symlink is read, not even when it takes a claimed file's place. None of them makes the
    service degraded, and doctor says what to do with them.
    """
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "secret.png").write_bytes(small_picture("PNG"))
    odd = {"fifo.png", "socket.png", "link.png", "dangling.png", "folder", "loop"}
    os.mkfifo(root.inbox / "fifo.png")
    for name, target in (
        ("link.png", secret / "secret.png"),
        ("dangling.png", "nowhere"),
        ("folder", secret),
        ("loop", root.path),
    ):
        (root.inbox / name).symlink_to(target)
    if os.geteuid() == 0:
        odd |= {"null.png", "disk.png"}
        os.mknod(root.inbox / "null.png", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root.inbox / "disk.png", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    (root.inbox / "x.png").mkdir()
    (root.inbox / "x.png" / "y.png").write_bytes(small_picture("PNG"))
    swapped = root.work / "20260102T030405-0a1b2c3d"
    make_place(swapped, "swapped.png").symlink_to(secret / "secret.png")
    with closing(socket.socket(socket.AF_UNIX)) as server, serving(root, **QUICK) as daemon:
        # The path of a socket must be short.
        server.bind(f"/proc/self/fd/{os.open(root.inbox, os.O_PATH)}/socket.png")
        daemon.wait_for_ends(1)
        daemon.wait_until(lambda: "socket.png" in daemon.log_text(), "the socket is told")
        daemon.wait_until(lambda: "inbox: " in root.heartbeat.read_text(), "status tells")
        status = fluxdrop("status", "--root", root.path)
        doctor = json.loads(fluxdrop("doctor", "--json", "--root", root.path).stdout)
        daemon.stop()
    told = {line["file"]: line["reason"] for line in daemon.log() if line["event"] == "left alone"}

    assert odd | {"x.png"} == {path.name for path in root.inbox.iterdir()}
    assert dict.fromkeys(odd, "it is not a regular file; symlinks are not followed") == told
    assert "it is not a regular file; symlinks are not followed" in " ".join(status.stdout.split())
    assert (0, "running") == (status.returncode, status.stdout.split()[1])
    (found,) = [finding for finding in doctor["findings"] if finding["check"] == "inbox"]
    assert ("note", True) == (found["verdict"], found["remedy"].startswith("Remove them, or"))
    assert f"left alone: {len(odd)}, such as" in found["says"]
    assert {"x.png/y.json"} == set(results(root))
    assert [swapped.name] == [path.name for path in root.refused.iterdir()]
    assert ["secret.png"] == [path.name for path in secret.iterdir()]
    assert not any("secret" in path for path in every_file(root))


def test_hard_links(root: Root, tmp_path: Path) -> None:
    """A file that has another name elsewhere keeps it and its contents; a result's picture does not
    change when somebody writes to the file under that name.
    """
    picture, text = small_picture("PNG"), b"no picture"
    for name, data in (("good.png", picture), ("bad.png", text)):
        (tmp_path / name).write_bytes(data)
        os.link(tmp_path / name, root.inbox / name)

    ended = fluxdrop("run", "--root", root.path, "--once", **QUICK)

    assert 1 == ended.returncode
    assert (picture, text) == (
        (tmp_path / "good.png").read_bytes(),
        (tmp_path / "bad.png").read_bytes(),
    )
    (tmp_path / "good.png").write_bytes(b"changed")
    digest = results(root)["good.json"]["image"]["sha256"]
    assert results(root)["good.json"]["source"]["sha256"] == digest
    for folder in (root.outputs, root.generated):
        assert digest == hashlib.sha256((folder / "good.png").read_bytes()).hexdigest()
