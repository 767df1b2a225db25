"""How many child processes died over each job."""

from __future__ import annotations

import pytest

from fluxdrop.files.layout import Root
from fluxdrop.jobs.crash_suspects import MAX_DEATHS
from fluxdrop.processes.child import ChildDied
from fluxdrop.service.supervision.process_deaths import ProcessDeaths
from support import jobs
from support.station import events


def test_limit(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    """A job has reached the limit at the death of the last process that it may cost; each death is logged."""
    deaths, job = ProcessDeaths(), jobs.job_in(jobs.claimed(root, "cat.png"))

    found = [deaths.record_death(job, ChildDied("dead")) for _ in range(MAX_DEATHS)]

    assert [False] * (MAX_DEATHS - 1) + [True] == found
    assert ["a process died over a job"] * MAX_DEATHS == events(caplog)


def test_jobs_apart(root: Root) -> None:
    """The deaths over one job do not count against another, and a job that is forgotten begins anew."""
    deaths = ProcessDeaths()
    one, other = (jobs.job_in(jobs.claimed(root, "cat.png")) for _ in range(2))
    for _ in range(MAX_DEATHS - 1):
        deaths.record_death(one, ChildDied("dead"))

    assert not deaths.record_death(other, ChildDied("dead"))
    deaths.forget(one.id)
    deaths.forget("a job that nothing died over")
    assert not deaths.record_death(one, ChildDied("dead"))


@pytest.mark.parametrize("hint", ["", "Replace the model."])
def test_hint(root: Root, hint: str) -> None:
    """The last death says how often the job was tried, unless its error has advice of its own; the others stay as they
    are."""
    deaths, job = ProcessDeaths(), jobs.job_in(jobs.claimed(root, "cat.png"))
    errors = [ChildDied("dead", hint=hint) for _ in range(MAX_DEATHS)]
    for error in errors:
        deaths.record_death(job, error)

    *earlier, last = errors
    assert {hint} == {error.hint for error in earlier}
    assert (
        hint or f"It was tried {MAX_DEATHS} times; see the log for what was printed."
    ) == last.hint
