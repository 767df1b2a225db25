"""The production line: generate, preprocess, predict, publish, each a stage that owns its part."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxdrop import durable
from fluxdrop.child import ChildDied
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.infotext import parse_infotext
from fluxdrop.generate.request import Generated, GenerationRequest
from fluxdrop.jobs import job as jobs
from fluxdrop.jobs.job import Job
from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root
from fluxdrop.logs import get_logger
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.choose import open_engine
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.predict.engine import Engine, EngineDown, EngineInfo
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import to_preview, to_tensor
from fluxdrop.publish import outcome
from fluxdrop.publish.outcome import Picture
from fluxdrop.publish.publisher import Finished, Published, Publisher
from fluxdrop.publish.result import Record, Result
from fluxdrop.service.prompts import read_prompt
from fluxdrop.service.stage import Stage, Stopping

log = get_logger("fluxdrop.daemon")

_MOST_DEATHS = 3
_PUBLISH_MOST = 64
_STOP_GRACE_SECONDS = 5.0
_DOWN_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Pictured:
    """A job whose picture is there; *generated* tells how it was made, if it was."""

    job: Job
    generated: Generated | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A job whose tensor is there."""

    job: Job
    picture: Picture
    tensor: NDArray[np.float32]


class Line:
    """All stages of one root, started and stopped together.

    *on_end* is told each record with its path below the root, from the publishing thread.
    """

    def __init__(
        self,
        root: Root,
        settings: Settings,
        store: Store,
        bundle: Bundle,
        *,
        on_end: Callable[[Record, str], None],
        on_void: Callable[[Path], None],
    ) -> None:
        self._root = root
        self._settings = settings
        self._store = store
        self._bundle = bundle
        self._on_end = on_end
        self._on_void = on_void
        self._stop = threading.Event()
        self._stopped_at = 0.0
        self._deaths: Counter[str] = Counter()
        self._engine: Engine | None = None
        self.current: dict[str, Any] | None = None
        """The picture being generated: job, steps done, all steps."""
        self.engine_trouble = ""
        self._generator = Generator(settings, wait_hook=self._stop_now)
        self.publisher = Publisher(root, store)
        batch = settings.batch_size
        self._generating = Stage(
            "generate", self._generate, most=1, limit=64, stop=self._stop, end=self._generator.close
        )
        self._preprocessing = Stage[_Pictured](
            "preprocess", self._preprocess, most=1, limit=1024, stop=self._stop
        )
        self._predicting = Stage[_Prepared](
            "predict",
            self._predict,
            most=batch,
            limit=2 * batch,
            stop=self._stop,
            begin=self._open_engine,
            end=self._close_engine,
        )
        self._publishing = Stage[Finished](
            "publish", self._publish, most=_PUBLISH_MOST, limit=2 * _PUBLISH_MOST, stop=self._stop
        )
        self.stages: tuple[Stage[Any], ...] = (
            self._generating,
            self._preprocessing,
            self._predicting,
            self._publishing,
        )

    @property
    def engine(self) -> EngineInfo | None:
        """What runs the model; None before it was loaded."""
        return self._engine.info if self._engine is not None else None

    @property
    def generator_pid(self) -> int | None:
        """The process id of the generator, while there is one."""
        return self._generator.pid

    def start(self) -> None:
        """Start all stages and wait until the engine is warm. Raises what kept it from that."""
        for stage in self.stages:
            stage.start()
        self._predicting.ready.wait()
        self.check()

    def check(self) -> None:
        """Raise what ended a stage, if one ended by itself."""
        for stage in self.stages:
            if stage.failure is not None:
                raise stage.failure

    def accept(self, job: Job) -> None:
        """Take in a claimed job."""
        if job.fault:
            self._fail(job, "intake", _fault(job))
        elif job.kind == "prompt":
            self._generating.put(job)
        else:
            self._preprocessing.put(_Pictured(job))

    def hasten(self) -> None:
        """End what is being waited for: a generation at once, anything else after a grace."""
        if not self._stop.is_set():
            self._stopped_at = time.monotonic()
            self._stop.set()

    def stop(self) -> None:
        """End all stages. What is not finished stays claimed and is taken up by the next start."""
        self.hasten()
        for stage in self.stages:
            if not stage.finish(timeout=_STOP_GRACE_SECONDS + 10.0):
                log.warning("did not stop in time", stage=stage.name)

    def _stop_now(self) -> None:
        if self._stop.is_set():
            raise Stopping

    def _stop_after_grace(self) -> None:
        if self._stop.is_set() and time.monotonic() - self._stopped_at > _STOP_GRACE_SECONDS:
            raise Stopping

    def _fail(self, job: Job, stage: jobs.Stage, error: FluxdropError) -> None:
        self._publishing.put(outcome.failed(job, stage, error))

    # generate

    def _generate(self, items: list[Job]) -> None:
        for job in items:
            try:
                generated = self._generated(job)
            except ChildDied as error:
                if self._set_aside(job, error):
                    self._fail(job, "generate", error)
                else:
                    self._generate([job])
            except FluxdropError as error:
                self._fail(job, "generate", error)
            else:
                self._preprocessing.put(_Pictured(job, generated))

    def _generated(self, job: Job) -> Generated:
        if job.generation.exists() and job.image.exists():
            return msgspec.json.decode(job.generation.read_bytes(), type=Generated)
        self._begin_attempt(job)
        request = self._request(job)
        unfinished = job.folder / ".image.png.tmp"
        self.current = {"job_id": job.id, "file": job.source, "step": 0, "steps": request.steps}
        try:
            with job.timed("generate"):
                generated = self._generator.generate(request, unfinished, self._on_step)
        finally:
            self.current = None
        unfinished.replace(job.image)
        durable.sync_folder(job.folder)
        durable.write(job.generation, msgspec.json.encode(generated))
        return generated

    def _request(self, job: Job) -> GenerationRequest:
        text = read_prompt(job.input, self._settings.max_prompt_bytes)
        job.prompt = text.strip()
        request, warnings = parse_infotext(text)
        job.warnings += warnings
        return job.request.generation or request

    def _on_step(self, step: int, steps: int) -> None:
        if self.current is not None:
            self.current = {**self.current, "step": step, "steps": steps}

    # preprocess

    def _preprocess(self, items: list[_Pictured]) -> None:
        for item in items:
            job = item.job
            try:
                with job.timed("preprocess"):
                    prepared = self._prepared(item)
            except FluxdropError as error:
                self._fail(job, "preprocess", error)
            else:
                self._predicting.put(prepared)

    def _prepared(self, item: _Pictured) -> _Prepared:
        job = item.job
        if item.generated is None:
            self._begin_attempt(job)
        else:
            job.warnings += item.generated.warnings
        source = job.input if item.generated is None else job.image
        image, file_format = open_picture(
            source,
            max_file_bytes=self._settings.max_file_bytes,
            max_pixels=self._settings.max_pixels,
        )
        original = None
        if file_format != "PNG":
            image.save(job.image, format="PNG")
            source, original = job.image, job.input
        tensor = to_tensor(image, self._bundle.spec.input)
        np.save(job.tensor, tensor)
        to_preview(tensor, self._bundle.spec.input).save(job.preview, format="PNG")
        picture = Picture(
            file=source,
            sha256=jobs.file_sha256(source),
            width=image.width,
            height=image.height,
            shape=tensor.shape,
            original=original,
            original_suffix={"JPEG": ".jpg", "WEBP": ".webp"}.get(file_format, ""),
            generated=item.generated,
        )
        return _Prepared(job, picture, tensor)

    # predict

    def _open_engine(self) -> None:
        # In this stage's thread, because the worker ends with the thread that started it.
        self._engine = open_engine(
            self._settings,
            self._bundle,
            cache=self._root.graphs,
            wait_hook=self._stop_after_grace,
        )

    def _close_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def _predict(self, items: list[_Prepared]) -> None:
        assert self._engine is not None
        started = time.perf_counter()
        try:
            raw = self._engine.predict(np.concatenate([item.tensor for item in items]))
        except EngineDown as error:
            self._wait_for_engine(error)
            self._predict(items)
        except ChildDied as error:
            self._after_death(items, error)
        except FluxdropError as error:
            if len(items) > 1:
                self._predict_singly(items)
            else:
                self._fail(items[0].job, "predict", error)
        else:
            self.engine_trouble = ""
            milliseconds = (time.perf_counter() - started) * 1000 / len(items)
            for item, row in zip(items, raw, strict=True):
                item.job.timings_ms["predict"] = round(milliseconds, 3)
                self._conclude(item, row)

    def _conclude(self, item: _Prepared, row: NDArray[np.float32]) -> None:
        assert self._engine is not None
        try:
            probabilities = label_probabilities(row, self._bundle)
        except FluxdropError as error:
            self._fail(item.job, "predict", error)
            return
        self._publishing.put(
            outcome.done(item.job, item.picture, self._bundle, self._engine.info, probabilities)
        )

    def _predict_singly(self, items: list[_Prepared]) -> None:
        for item in items:
            self._predict([item])

    def _after_death(self, items: list[_Prepared], error: ChildDied) -> None:
        if len(items) > 1:
            self._predict_singly(items)
        elif self._set_aside(items[0].job, error):
            self._fail(items[0].job, "predict", error)
        else:
            self._predict(items)

    def _wait_for_engine(self, error: EngineDown) -> None:
        if not self.engine_trouble:
            log.error("the engine is down; pictures wait", reason=error.message)
        self.engine_trouble = error.message
        if self._stop.wait(_DOWN_PAUSE_SECONDS):
            raise Stopping

    def _set_aside(self, job: Job, error: ChildDied) -> bool:
        """Whether *job* has cost as many processes as a job may."""
        self._deaths[job.id] += 1
        deaths = self._deaths[job.id]
        log.warning("a process died over a job", job=job.id, file=job.source, deaths=deaths)
        if deaths < _MOST_DEATHS:
            return False
        del self._deaths[job.id]
        error.hint = error.hint or f"It was tried {deaths} times; see the log for what was printed."
        return True

    # publish

    def _publish(self, items: list[Finished]) -> None:
        self.announce(self.publisher.publish(items))

    def announce(self, published: Published) -> None:
        """Log and pass on what was published."""
        for record, path in published.records:
            engine = self.engine
            if isinstance(record, Result):
                log.info(
                    "done",
                    job=record.job_id,
                    file=record.source.file,
                    result=path,
                    label=record.top[0].label,
                    p=round(record.top[0].p, 4),
                    engine=record.model.engine,
                    backend=record.model.backend,
                    worker_pid=engine.pid if engine else None,
                )
            else:
                log.warning(
                    "failed",
                    job=record.job_id,
                    file=record.source.file,
                    result=path,
                    stage=record.error.stage,
                    reason=record.error.message,
                )
            self._deaths.pop(record.job_id, None)
            self._on_end(record, path)
        for folder in published.void:
            self._on_void(folder)

    def _begin_attempt(self, job: Job) -> None:
        job.attempts = self._store.begin_attempt([job.id])[job.id]


def _fault(job: Job) -> FluxdropError:
    name = job.input.name
    if job.kind == "unknown":
        return FluxdropError(
            f"{jobs.printable(name)} is nothing that fluxdrop takes: {job.fault}",
            hint="Drop a .txt prompt, or a .png, .jpg, .jpeg or .webp picture.",
            kind="unknown",
        )
    return FluxdropError(
        f"{jobs.printable(name)} is not whole: {job.fault}",
        hint="Copy or save it again and drop it once more.",
        kind="incomplete",
    )
