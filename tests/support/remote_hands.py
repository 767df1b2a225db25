"""`ClusterHands` in a process of the station, for a test outside of it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fluxdrop.cluster.cluster_hands import ClusterHands
from fluxdrop.config import Settings
from fluxdrop.generate.hands import Died, HostLost, Made, Outcome, Refused, Run
from fluxdrop.generate.orders import GenerationOrder
from fluxdrop.generate.parameters import PromptParameters
from hosts import Host
from support.daemons import PATIENCE

TIMED_PIPELINE = Path(__file__).parents[1] / "timed_pipeline"
"""On a host's PYTHONPATH, this makes pictures as in `timed_pipeline.Pipeline`."""


class RemoteHands:
    """The hands on *station*, whose every line is kept with the moment at which it came."""

    def __init__(self, station: Host, folder: Path, **settings: object) -> None:
        self._commands = folder / f"commands-{time.monotonic_ns()}"
        self._commands.touch()
        words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        self.process = station.start(
            *(sys.executable, "-m", "support.remote_hands", self._commands, *words),
            env={**station.credentials(), "PYTHONPATH": ":".join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
        )
        self.steps: dict[str, list[tuple[float, int]]] = {}
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.ended_at: dict[str, float] = {}
        self.state: dict[str, Any] = {"room": 0, "slots": 0, "outage": None, "hosts": [], "pid": 0}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def end(self) -> None:
        """End the hands at once."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def begin(self, run: str, prompt: str, *, alone: bool = False, **parameters: object) -> None:
        """Begin a run of one picture."""
        self._tell(
            "begin", run=run, alone=alone, prompt=prompt, parameters={"seed": 1, **parameters}
        )

    def cancel(self, run: str) -> None:
        """Cancel a run."""
        self._tell("cancel", run=run)

    def wait(self, is_so: Any, what: str) -> None:
        """Wait until *is_so*."""
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            assert self.process.poll() is None, "the hands ended"
            assert time.monotonic() < deadline, f"not so in time: {what}: {self.state}"
            time.sleep(0.01)

    def wait_for_room(self, room: int) -> None:
        """Wait until *room* runs may be begun."""
        self.wait(lambda: self.state["room"] == room, f"room for {room}")

    def outcome(self, run: str) -> dict[str, Any]:
        """Wait for the end of a run; return it."""
        self.wait(lambda: run in self.outcomes, f"the end of {run}")
        return self.outcomes[run]

    def wait_for_step(self, run: str, step: int = 1) -> None:
        """Wait until a run has made *step* steps."""
        self.wait(lambda: self.steps.get(run, [(0, 0)])[-1][1] >= step, f"step {step} of {run}")

    def host(self, name: str) -> dict[str, Any]:
        """What is told of a host; nothing if it is not known."""
        return next((host for host in self.state["hosts"] if host["name"] == name), {})

    def host_of(self, run: str) -> str:
        """Wait until a host makes *run*; return its name."""
        found: list[str] = []

        def is_so() -> bool:
            found[:] = [host["name"] for host in self.state["hosts"] if run in host["jobs"]]
            return bool(found)

        self.wait(is_so, f"a host of {run}")
        return found[0]

    def _tell(self, command: str, **arguments: object) -> None:
        with self._commands.open("a") as commands:
            commands.write(json.dumps({"command": command, **arguments}) + "\n")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            match told["kind"]:
                case "state":
                    self.state = told
                case "step":
                    self.steps.setdefault(told["run"], []).append((time.monotonic(), told["step"]))
                case _:
                    self.ended_at[told["run"]] = time.monotonic()
                    self.outcomes[told["run"]] = told
        self.process.stdout.close()


@contextlib.contextmanager
def remote_hands(station: Host, folder: Path, **settings: object) -> Iterator[RemoteHands]:
    """Hands on *station*, which end with the test."""
    hands = RemoteHands(station, folder, **settings)
    try:
        yield hands
    finally:
        hands.end()


def _told(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Made():
            png = outcome.images[0].png
            told = {"host": outcome.host, "host_class": outcome.host_class, "png": png.hex()}
        case Refused():
            told = {"kind_of_error": outcome.error.kind, "message": outcome.error.message}
        case Died():
            told = {"message": outcome.error.message, "tail": outcome.error.tail}
        case HostLost():
            told = {"host": outcome.host, "reason": outcome.reason}
    return {"kind": type(outcome).__name__, "run": outcome.run, **told}


def main() -> None:
    """Follow the commands in the file that is named first; the settings follow as KEY=JSON."""
    given = dict(word.split("=", 1) for word in sys.argv[2:])
    settings = msgspec.convert({key: json.loads(value) for key, value in given.items()}, Settings)
    hands = ClusterHands(settings)
    commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def follow() -> None:
        with Path(sys.argv[1]).open() as lines:
            rest = ""
            while True:
                rest += lines.readline()
                if rest.endswith("\n"):
                    commands.put(json.loads(rest))
                    rest = ""
                else:
                    time.sleep(0.005)

    threading.Thread(target=follow, daemon=True).start()

    def tell(**told: object) -> None:
        print(json.dumps(told), flush=True)

    last: dict[str, object] = {}
    while True:
        while not commands.empty():
            told = commands.get()
            if told["command"] == "cancel":
                hands.cancel(told["run"])
            else:
                parameters = msgspec.convert(
                    {"prompt": told["prompt"], **told["parameters"]}, PromptParameters
                )
                run = Run(told["run"], [GenerationOrder(parameters)], [told["run"]], told["alone"])
                hands.begin(run)
        for outcome in hands.finished(
            0.01, lambda run, step, steps: tell(kind="step", run=run, step=step, steps=steps)
        ):
            tell(**_told(outcome))
        state = {
            "room": hands.room,
            "slots": hands.slots,
            "outage": hands.outage,
            "hosts": msgspec.to_builtins(hands.hosts()),
            "pid": hands.pid,
        }
        if state != last:
            tell(kind="state", **state)
            last = state


if __name__ == "__main__":
    main()
