"""Changes of the settings and of the model in use, one after the other, on stages of the tests' own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import msgspec
import pytest

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.intake.intake import Intake
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.service.changes import Changes, Reload, UseModel
from fluxdrop.service.items import Model
from fluxdrop.service.reporting.notify import Notifier
from fluxdrop.service.stages.stages import Stages
from support.fakes import full, model
from support.jobs import BUNDLE
from support.stages import Once, context_of
from support.station import events

ERROR = FluxdropError("There is no model bundle no", kind="model")


class RecordingStages:
    """Records the models that the stages are to open, and opens none."""

    def __init__(self, root: Root) -> None:
        self.settings = Settings()
        self.model: Model | None = model()
        self.context = context_of(root.work)
        self.max_reply_seconds = 1.0
        self.wanted: list[str] = []
        """The models that were to be opened."""
        self.warmed: list[bool] = []
        """Whether all models of the folders were to be opened anew, at each time that they were to be looked at."""

    def open_model(self, settings: Settings) -> None:
        """See `Stages.open_model`."""
        self.wanted.append(settings.model)

    def apply(self, settings: Settings) -> None:
        """See `Stages.apply`."""
        self.settings = settings

    def warm_up(self, *, reopen_all: bool) -> None:
        """See `Stages.warm_up`."""
        self.warmed.append(reopen_all)


class Bench:
    """Changes with what they need, and what was told of them."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.fake = RecordingStages(root)
        self.stages = cast(Stages, self.fake)
        self.changes = Changes(self.stages)
        self.told: list[tuple[str, FluxdropError | None]] = []
        self.applied: list[Settings] = []
        """What the intake was given."""
        self.notified: list[str] = []

    def use(self, *names: str, before: Callable[[], object] = lambda: None) -> None:
        """Ask for each of the models *names*; *before* is called before one is told how it went."""

        def tell(name: str, error: FluxdropError | None) -> None:
            before()
            self.told.append((name, error))

        for name in names:
            self.changes.add(UseModel(self.stages, name, partial(tell, name)))

    def reload(self, load: Callable[[], Settings]) -> Reload:
        """Ask for the settings that *load* gives."""

        class Intakes:
            apply = self.applied.append

        bench = self

        class Notifiers(Notifier):
            def reloading(self) -> None:
                bench.notified.append("reloading")

            def ready(self, max_reply_seconds: float) -> None:
                bench.notified.append(f"ready {max_reply_seconds}")

        change = Reload(self.root, load, self.stages, cast(Intake, Intakes()), Notifiers())
        self.changes.add(change)
        return change

    def settings(self, **changed: Any) -> Settings:
        """The settings in use, with others for *changed*."""
        return msgspec.structs.replace(self.fake.settings, **changed)


@pytest.fixture
def bench(root: Root) -> Bench:
    """A bench of the test's own."""
    return Bench(root)


def test_one_after_the_other(bench: Bench) -> None:
    """Models are opened in the order in which they were asked for, one at a time, and each is used and told of
    before the next is begun."""
    bench.use("one", "two")
    steps = []
    for _ in range(2):
        bench.changes.step()
        bench.changes.step()
        steps.append((bench.fake.settings.model, [*bench.fake.wanted], [*bench.told]))
        bench.changes.model_opened()
    bench.changes.step()

    assert [
        (BUNDLE.name, ["one"], []),
        ("one", ["one", "two"], [("one", None)]),
    ] == steps
    assert ("two", [("one", None), ("two", None)]) == (bench.fake.settings.model, bench.told)
    assert not bench.changes.busy


def test_a_hundred_at_once(bench: Bench) -> None:
    """However many are asked for at once, asking does not wait, and each has its turn."""
    names = [f"model-{number}" for number in range(100)]
    bench.use(*names)
    while bench.changes.busy:
        bench.changes.step()
        bench.changes.model_opened()

    assert names == bench.fake.wanted
    assert [(name, None) for name in names] == bench.told


def test_refused(bench: Bench) -> None:
    """A model that cannot be used leaves the settings as they were; it is told why, and the next has its turn."""
    before = bench.fake.settings
    bench.use("no", "two")
    bench.changes.step()
    bench.changes.model_refused(ERROR)
    between = bench.fake.settings
    bench.changes.step()
    bench.changes.model_opened()
    bench.changes.step()

    assert before == between
    assert [("no", ERROR), ("two", None)] == bench.told
    assert "two" == bench.fake.settings.model


def test_news_that_nobody_waits_for(bench: Bench) -> None:
    """News of a model that no change opened changes nothing."""
    before = bench.fake.settings
    bench.changes.model_opened()
    bench.changes.model_refused(ERROR)
    bench.changes.step()

    assert (before, []) == (bench.fake.settings, bench.told)


@pytest.mark.parametrize("error", [None, ERROR])
def test_full_disk_while_telling(bench: Bench, error: FluxdropError | None) -> None:
    """What a full disk kept from being told is told once, when there is room; the change is not made again, and the
    next waits so long."""
    bench.use("one", before=Once(full(), full()))
    bench.use("two")
    bench.changes.step()
    if error is None:
        bench.changes.model_opened()
    else:
        bench.changes.model_refused(error)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            bench.changes.step()
    held = [*bench.fake.wanted], [*bench.told], bench.changes.busy
    bench.changes.step()
    bench.changes.step()

    assert (["one"], [], True) == held
    assert (["one", "two"], [("one", error)]) == (bench.fake.wanted, bench.told)


def test_model_after_a_reload(bench: Bench) -> None:
    """A model that was asked for before a reload was read, and is used after it, keeps what the reload brought."""
    bench.use(BUNDLE.name)
    bench.reload(lambda: bench.settings(settle_seconds=9.0))
    bench.use("two")
    bench.changes.step()
    while bench.changes.busy:
        bench.changes.model_opened()
        bench.changes.step()

    assert (9.0, "two") == (bench.fake.settings.settle_seconds, bench.fake.settings.model)


def test_reload(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A reload brings what can change to the stages and the intake, keeps what only a restart can change, and says
    which is which; the service manager is told of its begin and its end."""
    caplog.set_level("INFO", "fluxdrop")
    change = bench.reload(
        lambda: bench.settings(settle_seconds=9.0, batch_size=7, gallery=False, metrics_port=9)
    )
    bench.changes.step()

    used = bench.fake.settings
    (said,) = [
        record.msg
        for record in caplog.records
        if isinstance(record.msg, dict) and record.msg["event"] == "reloaded"
    ]
    assert Settings(settle_seconds=9.0) == used
    assert ([used], []) == (bench.applied, bench.fake.wanted)
    assert (["settle_seconds"], ["batch_size", "gallery", "metrics_port"]) == (
        said["changed"],
        said["after_a_restart"],
    )
    assert (["reloading", "ready 1.0"], True) == (bench.notified, change.done)


def test_reload_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What waits for a restart still does after another reload."""
    for _ in range(2):
        bench.reload(lambda: Settings(batch_size=7))
        bench.changes.step()

    assert Settings() == bench.fake.settings


@pytest.mark.parametrize(
    ("changed", "opens"),
    [
        ({}, False),
        ({"settle_seconds": 9.0}, False),
        ({"pipeline": "another"}, False),
        ({"engine": "julia"}, True),
        ({"julia_backend": "plain"}, True),
        ({"device": "cpu"}, True),
        ({"worker_call_seconds": 9.0}, True),
    ],
)
def test_reload_that_opens_the_model(bench: Bench, changed: dict[str, Any], opens: bool) -> None:
    """The model is opened anew where what it runs on changes, and only there, and so are those of the folders; the
    settings are used when it is."""
    change = bench.reload(lambda: Settings(**changed))
    bench.changes.step()
    before = bench.fake.settings, change.done
    bench.changes.model_opened()
    bench.changes.step()

    assert [BUNDLE.name] * opens == bench.fake.wanted
    assert (Settings() if opens else Settings(**changed), not opens) == before
    assert (Settings(**changed), True) == (bench.fake.settings, change.done)
    assert [opens] == bench.fake.warmed


def test_reload_of_a_changed_model(bench: Bench) -> None:
    """A model whose files have changed is opened anew, under its old name too."""
    folder = bench.root.models / "mine"
    shutil.copytree(BUNDLE.folder, folder)
    bench.fake.settings = Settings(model="mine")
    bench.fake.model = Model(load_bundle("mine", bench.root.models), model().engine)
    bench.reload(lambda: bench.fake.settings)
    bench.changes.step()
    same = [*bench.fake.wanted]
    toml = folder / "model.toml"
    toml.write_text(toml.read_text().replace('"round"', '"rounded"'))
    bench.reload(lambda: bench.fake.settings)
    bench.changes.step()

    assert ([], ["mine"]) == (same, bench.fake.wanted)


REFUSALS = {
    "reason": FluxdropError("fluxdrop.toml has the unknown key modell", kind="config"),
    "defect": RuntimeError("Could not determine home directory."),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_reload_that_is_refused(bench: Bench, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """Settings that cannot be read, for whatever reason, change nothing: the log says so, the service manager hears
    that the daemon is ready, and what was asked for after that has its turn."""
    fail = Once(REFUSALS[name])

    def load() -> Settings:
        fail()
        return Settings(settle_seconds=9.0)

    refused = bench.reload(load)
    bench.use("one")
    bench.changes.step()
    between = bench.fake.settings, [*bench.applied], refused.done, [*bench.fake.wanted]
    bench.changes.model_opened()
    bench.reload(load)
    bench.changes.step()

    assert (Settings(), [], True, ["one"]) == between
    assert 1 == events(caplog).count("reload refused")
    assert ["reloading", "ready 1.0"] * 2 == bench.notified
    assert 9.0 == bench.fake.settings.settle_seconds
    assert len(bench.fake.context.defects.counts()) == (name == "defect")


def test_reload_that_has_to_wait(bench: Bench) -> None:
    """Settings that cannot be read because of what passes are read when it has passed."""
    fail = Once(full(), full())

    def load() -> Settings:
        fail()
        return Settings(settle_seconds=9.0)

    bench.reload(load)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            bench.changes.step()
    bench.changes.step()

    assert 9.0 == bench.fake.settings.settle_seconds
    assert not bench.changes.busy
