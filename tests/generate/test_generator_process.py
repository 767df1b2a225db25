"""The generator's process: how it ends, is replaced, and is not needed."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.processes.child import ChildDied
from support.daemons import wait_for_end
from support.generators import ONE_STEP, PARAMETERS, generate
from support.needs import needs_generation

pytestmark = pytest.mark.slow


@needs_generation
def test_killed_child(generator: Generator, tmp_path: Path) -> None:
    """A child that is killed in the middle is ChildDied with no torn file; the next call works."""
    target = tmp_path / "a.png"

    def kill(step: int, steps: int) -> None:
        assert generator.pid is not None
        os.kill(generator.pid, signal.SIGKILL)

    with pytest.raises(ChildDied, match="ended by SIGKILL"):
        generate(generator, PARAMETERS, target, kill)
    assert generator.pid is None
    assert not target.exists()

    generate(generator, ONE_STEP, target)

    assert target.exists()


@needs_generation
def test_wait_hook_ends_the_wait(tmp_path: Path) -> None:
    """What the wait hook raises reaches the caller, and the child is gone."""

    def hook() -> None:
        raise InterruptedError

    generator = Generator(Settings(), wait_hook=hook)
    try:
        with pytest.raises(InterruptedError):
            generate(generator, PARAMETERS, tmp_path / "a.png")

        assert generator.pid is None
    finally:
        generator.close()


@needs_generation
def test_close_frees(tmp_path: Path) -> None:
    """After close no process is left, and a second close does nothing."""
    generator = Generator(Settings(pipeline="./nowhere"))
    with pytest.raises(FluxdropError):
        generate(generator, PARAMETERS, tmp_path / "a.png")
    pid = generator.pid
    assert pid is not None

    generator.close()
    generator.close()

    assert generator.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@needs_generation
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent death signal is Linux's")
def test_child_ends_with_its_parent(tmp_path: Path) -> None:
    """When the parent is killed, the child ends, also in the middle of a picture."""
    code = textwrap.dedent(
        """
        from fluxdrop.config import Settings
        from fluxdrop.generate.generator import GenerationOrder, Generator
        from fluxdrop.generate.parameters import PromptParameters

        generator = Generator(Settings())
        parameters = PromptParameters(prompt="a ring", steps=1000)
        tell = lambda step, steps: print(generator.pid, flush=True)
        generator.generate([GenerationOrder(parameters)], tell)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        # The log writes to the same stream until it is configured.
        pid = next(int(line) for line in parent.stdout if line.strip().isdigit())

        parent.kill()

        wait_for_end(pid)


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra's packages no child is started, and the error names the extra."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    generator = Generator(Settings())

    with pytest.raises(FluxdropError) as caught:
        generate(generator, PARAMETERS, tmp_path / "a.png")

    assert "generator" == caught.value.kind
    assert "pip install 'fluxdrop[generate]'" in caught.value.hint
    assert "needs the packages of the extra 'generate'" in caught.value.message
    assert generator.pid is None


def test_impossible_request(tmp_path: Path) -> None:
    """An impossible value is refused before any child is started."""
    generator = Generator(Settings())

    with pytest.raises(FluxdropError, match="Steps is 0; must be 1 to 1000"):
        generate(generator, PromptParameters(prompt="a", steps=0), tmp_path / "a.png")

    assert generator.pid is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "memory"),
        (RuntimeError("a\nb"), "compute"),
        (FluxdropError("no", kind="prompt"), "prompt"),
    ],
)
def test_failures(error: Exception, kind: str) -> None:
    """Whatever goes wrong is one line with a kind; the end of memory has one of its own."""
    facts = failures.facts(error)

    assert kind == facts["kind"]
    assert "\n" not in facts["message"]
