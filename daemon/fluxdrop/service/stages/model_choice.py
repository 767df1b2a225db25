"""Which models answer for a job: those of its folder, the one that a replay names, or the one in use."""

from __future__ import annotations

from collections.abc import Callable

from fluxdrop.config import Settings, table_of
from fluxdrop.jobs.job import Job
from fluxdrop.predict.bundle import Bundle
from fluxdrop.service.items import Model
from fluxdrop.service.stages.warm_models import WarmModels


class ModelChoice:
    """Chooses the models of each job. Only the thread of `preprocess` may use it, except for `apply`."""

    def __init__(
        self,
        settings: Settings,
        warm: WarmModels,
        *,
        has_room: Callable[[], bool],
        is_named: Callable[[Bundle, str], bool],
    ) -> None:
        """Begin without a model in use.

        Args:
            settings: The settings to begin with.
            warm: The models beside the one in use.
            has_room: Returns whether the stage of the model in use has room for pictures.
            is_named: Returns whether a model is the one that a setting means by a name.
        """
        self._settings = settings
        self._warm = warm
        self._has_room = has_room
        self._is_named = is_named
        self.model: Model | None = None
        """The model in use; set before the first job comes."""

    def apply(self, settings: Settings) -> None:
        """Use *settings* from the next job on. Any thread may call this."""
        self._settings = settings
        self._warm.apply(settings)

    def has_room(self, job: Job) -> bool:
        """Return whether the stages of all models that are to answer for *job* have room for it."""
        names = self.names(job)
        others = [name for name in names if not self._is_in_use(name)]
        needs_model_in_use = len(others) < len(names) or not names
        return (not needs_model_in_use or self._has_room()) and self._warm.has_room(others)

    def models(self, job: Job) -> list[Model]:
        """Return the models that are to answer for *job*, in order.

        Raises:
            FluxdropError: One of them does not exist; kind ``model``.
        """
        assert self.model is not None
        is_replayed = job.options.model is not None
        return [
            self.model
            if self._is_in_use(name)
            else self._warm.model(name, is_installed=is_replayed)
            for name in self.names(job)
        ] or [self.model]

    def use(self, model: Model) -> None:
        """Use *model* for the jobs that follow and have none of their own."""
        self.model = model
        self._warm.end(self._is_in_use)

    def warm_up(self, *, reopen_all: bool) -> None:
        """Open the models of the folders; see `WarmModels.warm_up`."""
        names = [name for table in self._settings.folders.values() for name in table.model_names]
        others = [name for name in dict.fromkeys(names) if not self._is_in_use(name)]
        self._warm.warm_up(others, reopen_all=reopen_all)

    def trim(self) -> None:
        """See `WarmModels.trim`."""
        self._warm.trim()

    def names(self, job: Job) -> tuple[str, ...]:
        """Return the names that a replay or the table of its folder gives to the models of *job*.

        None are given if only the model in use is to answer.
        """
        if job.options.model is not None:
            return (job.options.model,)
        return tuple(table_of(self._settings.folders, job.inbox_folder).model_names)

    def _is_in_use(self, name: str) -> bool:
        assert self.model is not None
        return self._is_named(self.model.bundle, name)
