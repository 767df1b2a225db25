"""The commands, as a person types them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fluxdrop as fluxdrop_package
from fluxdrop.files.layout import Root
from support.commands import known, loaded
from support.daemons import environment, failures, fluxdrop, results, serving
from support.needs import needs_generation

pytestmark = pytest.mark.slow

COMMANDS = [
    "setup",
    "init",
    "run",
    "submit",
    "cancel",
    "info",
    "status",
    "jobs",
    "show",
    "export",
    "replay",
    "doctor",
    "generate",
    "preprocess",
    "predict",
]


@pytest.mark.parametrize("command", [*COMMANDS, "model compile", "model export"])
def test_help(command: str) -> None:
    """Every command tells what it does."""
    ended = fluxdrop(*command.split(), "--help")

    assert 0 == ended.returncode
    assert "Usage: " in ended.stdout


def test_help_names_no_types() -> None:
    """The value of each option and argument has a name or is spelt out, and is not called ``<int range>``."""
    told = {}
    for words, command in known():
        full = loaded(command)
        context = full.context_class(full, info_name=words)
        told[words] = [
            parameter.name
            for parameter in full.params
            if re.search("<|x[<>]=|[<>]=x", "".join(parameter.get_help_record(context) or ()))
        ]

    assert {} == {words: names for words, names in told.items() if names}


def test_setup_is_named_as_it_is() -> None:
    """Whatever tells a person to run `fluxdrop setup` with an option names the one option that setup has for it."""
    folder = Path(fluxdrop_package.__file__).parent
    told = {
        option
        for path in folder.rglob("*.py")
        for option in re.findall(r"fluxdrop setup (--[a-z-]+)", path.read_text())
    }
    (setup,) = [loaded(command) for words, command in known() if words == "setup"]
    options = [parameter.opts for parameter in setup.params if parameter.name == "force"]

    assert [["--force"]] == options
    assert {"--force"} == told


@pytest.mark.parametrize(
    "words", [["--help"], ["model", "--help"], ["no-such-command"], ["--version"]]
)
def test_help_loads_no_command(words: list[str]) -> None:
    """The help of a group, and what it refuses, load no command and none of the libraries behind them."""
    code = (
        "import sys\n"
        "from fluxdrop.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "names = 'msgspec numpy onnx onnxruntime pydantic rich.console structlog torch watchdog'\n"
        "names += ' fluxdrop.cli.status fluxdrop.cli.model.use'\n"
        "print([name for name in names.split() if name in sys.modules])"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )

    assert "[]" == ended.stdout.splitlines()[-1]


def test_summaries() -> None:
    """A group says of each command, which it has not loaded, what the command says of itself first."""
    summaries = {words: command.get_short_help_str(1000) for words, command in known()}
    expected = {words: loaded(command).get_short_help_str(1000) for words, command in known()}

    assert expected == summaries


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("stat", "No such command 'stat'. Did you mean 'status'?"),
        ("model ad", "No such command 'ad'. Did you mean 'add'?"),
        ("status --wach", "No such option: --wach"),
    ],
)
def test_misspelt(words: str, said: str) -> None:
    """A command that is not there is refused with those that were meant, and so is an option."""
    ended = fluxdrop(*words.split())

    assert (2, True) == (ended.returncode, said in ended.stderr)


@pytest.mark.parametrize(
    ("typed", "completions"),
    [
        ("fluxdrop stat", "status"),
        ("fluxdrop model us", "use"),
        ("fluxdrop status --wa", "--watch"),
    ],
)
def test_completion(typed: str, completions: str) -> None:
    """A shell completes the names of commands and options, also of those that are not loaded yet."""
    asked = {
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
        "_FLUXDROP_COMPLETE": "complete_bash",
    }
    code = "import sys; sys.argv[0] = 'fluxdrop'; from fluxdrop.cli import app; app()"

    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment(), **asked},
        capture_output=True,
        text=True,
        check=True,
    )

    assert completions == ended.stdout.strip()


def test_init_is_repeatable(tmp_path: Path) -> None:
    """init makes a root, and again leaves what is in it."""
    first = fluxdrop("init", tmp_path / "new root")
    (tmp_path / "new root" / "inbox" / "a.txt").write_text("kept")
    second = fluxdrop("init", tmp_path / "new root", "--json")

    assert (0, 0) == (first.returncode, second.returncode)
    assert "kept" == (tmp_path / "new root" / "inbox" / "a.txt").read_text()
    assert str(tmp_path / "new root") == json.loads(second.stdout)["root"]


@pytest.mark.parametrize(
    "command", [["run"], ["status"], ["submit", "--prompt", "x"], ["replay", "x"]]
)
def test_not_a_root(tmp_path: Path, command: list[str]) -> None:
    """What needs a root and has none says how to make one, with exit code 2 and no traceback."""
    ended = fluxdrop(*command, "--root", tmp_path)

    assert (2, "") == (ended.returncode, ended.stdout)
    assert f"fluxdrop: {tmp_path} is not a fluxdrop root" in ended.stderr
    assert f"fluxdrop init {tmp_path}" in ended.stderr


def test_error_as_json(tmp_path: Path) -> None:
    """With --json an error is an object on stdout too."""
    ended = fluxdrop("status", "--json", "--root", tmp_path)

    assert 2 == ended.returncode
    assert "root" == json.loads(ended.stdout)["error"]["kind"]


@pytest.mark.parametrize(
    ("words", "said", "command"),
    [
        ("status --json --wach", "No such option: --wach", "fluxdrop status"),
        ("show --json", "Missing argument", "fluxdrop show"),
        ("model use --json", "Missing argument", "fluxdrop model use"),
        ("jobs --json --limit many", "Invalid value for '--limit'", "fluxdrop jobs"),
        ("jobs --json --limit -1", "-1 is not from 0 to", "fluxdrop jobs"),
        ("stat --json", "No such command 'stat'", "fluxdrop"),
        ("--json", "No such option: --json", "fluxdrop"),
    ],
)
def test_usage_error_as_json(words: str, said: str, command: str) -> None:
    """With --json among the words, an error in the use of a command is an object on stdout too."""
    ended = fluxdrop(*words.split())
    error = json.loads(ended.stdout)["error"]

    assert (2, "usage", True) == (ended.returncode, error["kind"], said in error["message"])
    assert said in ended.stderr
    assert error["hint"].endswith(f"{command} --help' for help.")


def test_submit_waits(root: Root, samples: Path) -> None:
    """submit --wait returns the results of what it dropped, and 1 if one failed."""
    bad = root.path / "bad.png"
    bad.write_bytes(b"no picture")
    with serving(root, engine="onnxruntime"):
        files = [samples / "angular_star_01.png", samples / "angular_star_01.png"]
        good = fluxdrop("submit", *files, "--wait", "--json", "--root", root.path)
        mixed = fluxdrop("submit", bad, "--wait", "--root", root.path)

    rows = json.loads(good.stdout)

    assert 0 == good.returncode
    assert ["done", "done"] == [row["state"] for row in rows]
    assert ["angular", "angular"] == [row["label"] for row in rows]
    assert {"outputs/angular_star_01.json", "outputs/angular_star_01-2.json"} == {
        row["record"] for row in rows
    }
    assert 1 == mixed.returncode
    assert "bad.png is not a picture" in " ".join(mixed.stdout.split())


def test_submit_without_daemon(root: Root) -> None:
    """submit drops the prompt under a readable name; --wait without a daemon says so and ends."""
    dropped = fluxdrop("submit", "--prompt", "A large, red circle!", "--root", root.path)
    waited = fluxdrop("submit", "--prompt", "x", "--wait", "--root", root.path)

    assert "inbox/a-large-red-circle.txt\n" == dropped.stdout
    assert "A large, red circle!" == (root.inbox / "a-large-red-circle.txt").read_text()
    assert 2 == waited.returncode
    assert "No daemon serves" in waited.stderr


def test_status(root: Root, samples: Path) -> None:
    """status tells the daemon, its engine, what is done and what failed, and what is gone."""
    (root.inbox / "bad.png").write_bytes(b"no picture")
    with serving(root, engine="onnxruntime") as daemon:
        fluxdrop("submit", samples / "angular_star_01.png", "--wait", "--root", root.path)
        daemon.wait_for_ends(2)
        running = json.loads(fluxdrop("status", "--json", "--root", root.path).stdout)
        shown = fluxdrop("status", "--root", root.path).stdout
        daemon.stop()
    stopped = json.loads(fluxdrop("status", "--json", "--root", root.path).stdout)
    (root.outputs / "angular_star_01.json").unlink()
    gone = json.loads(fluxdrop("status", "--json", "--root", root.path).stdout)

    assert (True, daemon.process.pid) == (running["running"], running["pid"])
    assert ("onnxruntime", "events") == (
        running["daemon"]["engine"]["engine"],
        running["daemon"]["watch"],
    )
    assert {"claimed": 0, "done": 1, "failed": 1} == running["jobs"]
    assert "bad.png is not a picture" in " ".join(shown.split())
    assert (False, None, None) == (stopped["running"], stopped["pid"], stopped["daemon"])
    assert ([True], [False]) == (
        [row["there"] for row in stopped["latest_done"]],
        [row["there"] for row in gone["latest_done"]],
    )


def test_replay(root: Root, samples: Path) -> None:
    """A replay is a new job with the same picture; a failed one is replayed from its input."""
    (root.inbox / "bad.png").write_bytes(b"no picture")
    with serving(root, engine="onnxruntime") as daemon:
        fluxdrop("submit", samples / "round_ring_01.png", "--wait", "--root", root.path)
        daemon.wait_for_ends(2)
        good = fluxdrop("replay", "round_ring_01", "--wait", "--json", "--root", root.path)
        bad = fluxdrop("replay", "bad.png", "--wait", "--json", "--root", root.path)
        unknown = fluxdrop("replay", "nothing", "--root", root.path)

    done, failed = results(root), failures(root)

    assert (0, 1, 2) == (good.returncode, bad.returncode, unknown.returncode)
    assert done["round_ring_01.json"]["job_id"] == done["round_ring_01-2.json"]["replay_of"]
    assert (
        done["round_ring_01.json"]["probabilities"] == done["round_ring_01-2.json"]["probabilities"]
    )
    assert failed["bad.png.error.json"]["job_id"] == failed["bad-2.png.error.json"]["replay_of"]
    assert "There is no job nothing" in unknown.stderr


@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_stages_alone(tmp_path: Path, samples: Path, engine: str) -> None:
    """preprocess writes the tensor; predict gives the same for it as for the picture."""
    picture, tensor = samples / "angular_square_01.png", tmp_path / "square.npy"
    made = fluxdrop("preprocess", picture, "-o", tensor)
    again = fluxdrop("preprocess", picture, "-o", tensor)
    by_picture = fluxdrop("predict", picture, "--engine", engine, "--json")
    by_tensor = fluxdrop("predict", tensor, "--engine", engine, "--json")
    shown = fluxdrop("predict", picture, "--engine", engine)

    probabilities = json.loads(by_picture.stdout)["probabilities"]

    assert (0, 2) == (made.returncode, again.returncode)
    assert ((1, 1, 64, 64), np.float32) == (np.load(tensor).shape, np.load(tensor).dtype)
    assert probabilities["angular"] > 0.9
    assert probabilities == json.loads(by_tensor.stdout)["probabilities"]
    assert "angular" == shown.stdout.split("\n")[0].split()[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("no.png", None),
        ("text.png", b"text"),
        ("bad.npy", b"\x93NUMPY"),
        ("pickle.npy", b"\x80\x04N."),
    ],
)
def test_predict_refuses(tmp_path: Path, name: str, content: bytes | None) -> None:
    """What predict cannot read is one sentence that names the file, and exit code 2."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    ended = fluxdrop("predict", path, "--engine", "onnxruntime")

    assert 2 == ended.returncode
    assert name in ended.stderr
    assert 1 == len(ended.stderr.strip().splitlines())


@needs_generation
def test_generate(tmp_path: Path) -> None:
    """generate writes the picture with its parameters, and nothing over a file that is there."""
    path = tmp_path / "ring.png"
    made = fluxdrop("generate", "a green ring", "-o", path, "--seed", "7", "--json")
    again = fluxdrop("generate", "a green ring", "-o", path)

    facts = json.loads(made.stdout)

    assert (0, 2) == (made.returncode, again.returncode)
    assert (7, "a green ring") == (facts["parameters"]["seed"], facts["parameters"]["prompt"])
    with Image.open(path) as image:
        assert ((64, 64), True) == (image.size, "Seed: 7" in image.info["parameters"])
    assert [path] == list(tmp_path.iterdir())


def test_colours_on_a_terminal(root: Root, samples: Path) -> None:
    """On a terminal the log is coloured for people; in a pipe each line is a JSON object."""
    (root.inbox / "star.png").write_bytes((samples / "angular_star_01.png").read_bytes())
    command = [sys.executable, "-m", "fluxdrop", "run", "--once", "--root", str(root.path)]
    piped = subprocess.run(
        command, env=environment(engine="onnxruntime"), capture_output=True, text=True, check=True
    )
    ours, theirs = pty.openpty()
    subprocess.run(command, env=environment(engine="onnxruntime"), stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)

    events = [json.loads(line)["event"] for line in piped.stderr.splitlines()]

    assert ["serving", "done", "stopping"] == events
    assert "\x1b[" in shown
    assert not shown.startswith("{")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('engin = "julia"', "unknown key engin. Did you mean engine?"),
        ('engine = "rocket"', "engine in "),
        ("batch_size = 0", "batch_size in "),
        ("batch_size =", "cannot be read"),
    ],
)
def test_wrong_settings(root: Root, text: str, expected: str) -> None:
    """A wrong fluxdrop.toml is one sentence that names the file and the key, and exit code 2."""
    (root.path / "fluxdrop.toml").write_text(text)

    ended = fluxdrop("run", "--once", "--root", root.path)

    assert 2 == ended.returncode
    assert expected in ended.stderr
    assert "fluxdrop.toml" in ended.stderr
    assert 1 == len(ended.stderr.strip().splitlines())
