"""What members of the group get done through .fluxdrop/requests/, and what they do not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fluxdrop.files.layout import Root, holder
from fluxdrop.jobs.job_id import new_job_id
from fluxdrop.jobs.store import Row
from fluxdrop.requests.messages import ModelRequest, ReplayRequest, ask_and_wait, ask_to_cancel
from fluxdrop.requests.replay import plan_replay, request_replay
from fluxdrop.requests.submission import submit_prompt, wait_for_jobs, wait_for_replays
from fluxdrop.resources import models_folder
from support.daemons import ends, failures, fluxdrop, results, serving
from support.desk import QUICK, nothing, rows
from support.members import MEMBER, as_member, folder_for_everybody, group_root, needs_root, umask

pytestmark = pytest.mark.slow


@pytest.fixture
def everywhere() -> Iterator[Path]:
    yield from folder_for_everybody()


@pytest.fixture
def station(everywhere: Path, samples: Path) -> Root:
    """A root that a group may use, with one job done."""
    root = group_root(everywhere)
    shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
    shutil.copytree(models_folder() / "round-or-angular", root.models / "mine")
    assert 0 == fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode
    return root


@needs_root
def test_member(station: Root) -> None:
    """A member of the group submits, has jobs done again, cancels and chooses among the installed
    models, through a daemon of another user.
    """
    (first,) = rows(station)

    def ask_for_all() -> tuple[str, list[Any], list[Any]]:
        ask_and_wait(station, ModelRequest("mine"), nothing)
        asked = request_replay(station, plan_replay(station, first, model="round-or-angular"))
        (replayed,) = wait_for_replays(station, [asked], nothing)
        ask_to_cancel(station, ["nothing"], nothing)
        submitted = submit_prompt(station, "a ring")
        return asked, [replayed.state if isinstance(replayed, Row) else replayed], [submitted.file]

    with serving(station, **QUICK) as daemon:
        asked, states, submitted = as_member(ask_for_all)
        rest = as_member(lambda: [row.id for row in wait_for_jobs(station, [asked], nothing)])
        daemon.stop()

    assert (["done"], ["a-ring.txt"], [asked]) == (states, submitted, rest)
    assert "mine\n" == station.model_in_use.read_text()


@needs_root
def test_member_asks_while_nothing_runs(station: Root) -> None:
    """A member reads the index and leaves requests without a daemon; the next start does them."""
    (first,) = rows(station)
    found = as_member(lambda: [row.id for row in rows(station)])
    holding = as_member(lambda: holder(station))
    with umask(0o077):
        asked = as_member(lambda: request_replay(station, plan_replay(station, first)))
    mode = (station.requests / f"{asked}.request.json").stat().st_mode & 0o777
    ended = fluxdrop("run", "--once", "--root", station.path, **QUICK)

    assert ([first.id], None) == (found, holding)
    # The daemon is neither this user nor root, mostly.
    assert (0o644, 0) == (mode, ended.returncode)
    assert {first.id, asked} == {row.id for row in rows(station)}


@needs_root
def test_member_reads_after_a_kill(station: Root, samples: Path) -> None:
    """A member reads the index that a killed daemon left, with what had ended last."""
    with serving(station, **QUICK) as daemon:
        shutil.copyfile(samples / "round_circle_01.png", station.inbox / "circle.png")
        daemon.wait_until(lambda: len(rows(station)) == 2, "two rows")

    found = as_member(lambda: sorted(row.source for row in rows(station)))

    assert ["circle.png", "ring.png"] == found


def attempts(root: Root) -> dict[str, Callable[[], object]]:
    """What a member is not to get done, by what it is called."""
    request = f"{new_job_id()}.request.json"
    return {
        "settings": lambda: (root.path / "fluxdrop.toml").write_text("shared_root = true\n"),
        "model in use": lambda: root.model_in_use.write_text(str(root.inbox)),
        "model added": lambda: (root.models / "evil").mkdir(),
        "job made": lambda: (root.work / new_job_id()).mkdir(),
        "root renamed": lambda: root.inbox.rename(root.path / "away"),
        "state renamed": lambda: root.state.rename(root.path / "away"),
        "index": lambda: root.database.write_bytes(b""),
        "lock": lambda: root.lock.write_bytes(b"1"),
        "answers": lambda: (root.answers / "x.json").write_bytes(b"{}"),
        "results": lambda: (root.outputs / "ring.json").write_bytes(b"{}"),
        "results removed": lambda: (root.outputs / "ring.json").unlink(),
        "requests listed": lambda: list(root.requests.iterdir()),
        "another's request": lambda: (root.requests / request).unlink(),
    }


@needs_root
@pytest.mark.parametrize("name", attempts(Root(Path("/nowhere"))))
def test_what_a_member_may_not(station: Root, name: str) -> None:
    """A member changes neither settings, models, state nor results, and sees nobody else's requests."""
    attempt = attempts(station)[name]
    for path in ("fluxdrop.toml", *(f".fluxdrop/requests/{new_job_id()}.request.json",)):
        (station.path / path).touch()

    def tried() -> str:
        assert os.geteuid() == MEMBER
        try:
            attempt()
        except (PermissionError, FileNotFoundError) as error:
            return type(error).__name__
        return "done"

    before = sorted(map(str, station.path.rglob("*")))
    told = as_member(tried)

    assert told in ("PermissionError", "FileNotFoundError")
    assert ("FileNotFoundError" == told) == (name == "another's request")
    assert before == sorted(map(str, station.path.rglob("*")))


@needs_root
def test_forged_requests(station: Root, samples: Path) -> None:
    """For some seconds a member floods requests/ with forged requests, folders, links and pipes, and swaps
    them for one another; the daemon serves meanwhile, no path is followed and no file of the member's
    becomes a job.
    """
    secret = station.path.parent / "secret.png"
    shutil.copyfile(samples / "round_circle_01.png", secret)
    secret.chmod(0o600)
    (station.path.parent / "victim").mkdir()
    (station.path.parent / "victim/keep").touch()

    def attack() -> int:
        until = time.monotonic() + 5
        count = 0
        while time.monotonic() < until:
            count += 1
            place = station.requests / f"{new_job_id()}.request.json"
            try:
                match count % 6:
                    case 0:
                        place.symlink_to(secret)
                    case 1:
                        os.mkfifo(place)
                    case 2:
                        place.mkdir()
                        (place / "in").symlink_to(station.path.parent / "victim")
                        place.chmod(0o777)
                    case 3:
                        place.write_bytes(msgspec.json.encode(ReplayRequest("../../secret.png")))
                    case 4:
                        place.touch()
                        os.truncate(place, 1 << 40)
                    case 5:
                        place.write_bytes(msgspec.json.encode(ModelRequest(str(station.inbox))))
                        place.unlink()
                        place.symlink_to(station.requests)
            except FileNotFoundError:
                # The daemon was quicker.
                pass
        return count

    with serving(station, **QUICK) as daemon:
        count = as_member(attack)
        shutil.copyfile(samples / "angular_star_01.png", station.inbox / "star.png")
        daemon.wait_for_ends(2)
        assert 0 == daemon.stop()

    assert count > 100
    assert {"ring.json", "star.json"} == set(results(station))
    assert {} == failures(station)
    assert 2 == len(ends(station))
    assert [] == list(station.work.iterdir())
    assert (station.path.parent / "victim/keep").exists()
    assert not station.model_in_use.exists()
