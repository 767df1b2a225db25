"""Pictures of an SDXL-shaped pipeline on a GPU: the daemon against a bare diffusers loop, and the ways to save memory.

Without an NVIDIA GPU nothing is measured.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from typing import NamedTuple

from benchmarks.station import serving
from benchmarks.table import Row
from fluxdrop.config import PipelineTable, Settings
from fluxdrop.generate.generator import GenerationOrder, Generator
from fluxdrop.generate.parameters import PromptParameters

_COUNT = 12
_PROMPT = (
    "a red circle on a white background\nSteps: 20, CFG scale: 5, Seed: {seed}, Size: 1024x1024\n"
)
_AGAINST = "SDXL-shaped, 1024x1024, 20 steps, float16, {batch} at once, against a bare loop"
_LEFT_GIB = 14
_BALLAST = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
ballast = torch.empty(free - int(sys.argv[1]) * 2**30, dtype=torch.uint8, device="cuda")
print("ready", flush=True)
sys.stdin.read()
"""


class Measured(NamedTuple):
    """Seconds per picture, and the most memory of the GPU in use, in GiB."""

    seconds: float
    gibibytes: float


def rows() -> Iterator[Row]:
    """The daemon's rate divided by the loop's, its memory, and what each way to save memory costs."""
    card = _nvidia("name")
    if card is None:
        for batch in (1, 4):
            yield Row(
                _AGAINST.format(batch=batch), ">= 0.98", None, "not measured: no GPU is here", None
            )
        return
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Path(folder) / "sdxl"
        subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu_pipelines", pipeline], check=True, timeout=300
        )
        for batch, target in ((1, 0.98), (4, 1.0)):
            loop, daemon = _loop(pipeline, batch), _daemon(pipeline, batch)
            figure = loop.seconds / daemon.seconds
            what = f"{_AGAINST.format(batch=batch)} ({card}, {loop.seconds:.2f} s a picture)"
            yield Row(what, f">= {target}", figure, "x as fast", figure >= target)
            ratio = daemon.gibibytes / loop.gibibytes
            what = f"its memory of the GPU, {batch} at once ({loop.gibibytes:.1f} GiB the loop)"
            yield Row(what, "<= 1.1", ratio, "x", ratio <= 1.1)
        yield from _ways(pipeline)


def _loop(pipeline: Path, batch: int) -> Measured:
    with tempfile.TemporaryDirectory() as folder, _peak() as peak:
        command = [sys.executable, "-m", "benchmarks.diffusers_loop", str(pipeline), "1024", "cuda"]
        done = subprocess.run(
            [*command, str(batch), str(_COUNT), folder], check=True, capture_output=True, text=True
        )
    return Measured(float(done.stdout.split()[-1]), peak())


def _daemon(pipeline: Path, batch: int) -> Measured:
    settings = f'pipeline = "{pipeline}"\ngenerator_batch_size = {batch}\n'
    with _peak() as peak, serving(settings, "auto") as station:
        root = station.root
        for number in range(batch):
            (root.inbox / f"warm-{number}.txt").write_text(_PROMPT.format(seed=10_000 + number))
        station.wait_for(batch)
        (root.path / "batch").mkdir()
        for seed in range(_COUNT):
            (root.path / "batch" / f"{seed}.txt").write_text(_PROMPT.format(seed=seed))
        started = perf_counter()
        (root.path / "batch").rename(root.inbox / "batch")
        station.wait_for(batch + _COUNT)
        seconds = (perf_counter() - started) / _COUNT
    return Measured(seconds, peak())


def _ways(pipeline: Path) -> Iterator[Row]:
    """What a picture takes in each way that needs less memory, and that it works where the memory is out."""
    tables = {
        "none": PipelineTable(source=str(pipeline)),
        "VAE tiling and slicing": PipelineTable(source=str(pipeline), vae_tiling=True),
        "attention slicing": PipelineTable(source=str(pipeline), attention_slicing=True),
        "offload = model": PipelineTable(source=str(pipeline), offload="model"),
        "offload = sequential": PipelineTable(source=str(pipeline), offload="sequential"),
    }
    plain = None
    for name, table in tables.items():
        with _peak() as peak, _generating(table) as generator:
            made = _timed(generator)
        plain = plain or made
        what = f"a picture with {name} (peak {peak():.1f} GiB), against none"
        yield Row(what, "", made / plain, "x the time", True)
    with _ballast(_LEFT_GIB):
        for count, size in ((4, 1024), (1, 2048)):
            with _generating(tables["none"]) as generator:
                orders = [_order(seed, size) for seed in range(count)]
                images = generator.generate(orders)
            warnings = " ".join(dict.fromkeys(images[0].generated.warnings))
            what = f"{count} of {size}x{size} with {_LEFT_GIB} GiB free: {warnings}"
            yield Row(what, "made", len(images), "made", len(images) == count)


def _timed(generator: Generator) -> float:
    """Seconds for a picture, after one that is not measured."""
    generator.generate([_order(10_000, 1024)])
    started = perf_counter()
    generator.generate([_order(0, 1024)])
    return perf_counter() - started


def _order(seed: int, size: int) -> GenerationOrder:
    return GenerationOrder(
        PromptParameters(
            prompt="a red circle on a white background",
            steps=20,
            guidance_scale=5.0,
            seed=seed,
            width=size,
            height=size,
        )
    )


@contextmanager
def _generating(table: PipelineTable) -> Iterator[Generator]:
    with closing(Generator(Settings(pipeline="sdxl", pipelines={"sdxl": table}))) as generator:
        yield generator


@contextmanager
def _ballast(gibibytes: int) -> Iterator[None]:
    """Leave only *gibibytes* of the GPU's memory free."""
    with subprocess.Popen(
        [sys.executable, "-c", _BALLAST, str(gibibytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield


@contextmanager
def _peak() -> Iterator[Callable[[], float]]:
    """Give a function that returns the most memory of the GPU that was in use in the block, in GiB."""
    stop, most, before = Event(), [0.0], float(_nvidia("memory.used") or 0)

    def watch() -> None:
        while not stop.wait(0.1):
            most[0] = max(most[0], float(_nvidia("memory.used") or 0) - before)

    thread = Thread(target=watch)
    thread.start()
    try:
        yield lambda: most[0] / 1024
    finally:
        stop.set()
        thread.join()
        sleep(1)  # until the driver has the memory back


def _nvidia(fact: str) -> str | None:
    """The first GPU's *fact* in nvidia-smi's words, sizes in MiB; None without a GPU."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", f"--query-gpu={fact}", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else None
