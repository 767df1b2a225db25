"""Checks of the hosts of a cluster, for ``fluxdrop doctor --cluster``. Ray is used by a process of its own only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec

import msgspec

from fluxdrop import __version__
from fluxdrop.cluster.examined import Examination, ExaminedHost, HostReport, Question
from fluxdrop.config import Settings
from fluxdrop.doctor.finding import Finding
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.choose_pipeline import configured
from fluxdrop.printable import printable

_EXAMINATION_SECONDS = 600
_MAX_CLOCK_OFFSET_SECONDS = 2.0
_SPACE_NOTE = 2 * 1000**3
_MAX_TEXT = 300


def examine(settings: Settings) -> Examination:
    """Ask all hosts of the cluster in *settings*; this takes seconds, as each makes a picture.

    Raises:
        FluxdropError: No cluster is set, kind ``config``; Ray is not installed, or the process that asks the hosts
            failed, kind ``cluster``.
    """
    if not settings.cluster:
        raise FluxdropError(
            "There is no cluster to examine: the setting `cluster` is empty",
            hint='Set cluster = "auto" in fluxdrop.toml on the station (docs/cluster.md).',
            kind="config",
        )
    if find_spec("ray") is None:
        raise FluxdropError(
            "Ray is not installed, so no cluster can be used",
            hint="Run: pip install 'fluxdrop[cluster]'",
            kind="cluster",
        )
    pipelines, _default = configured(settings)
    question = Question(address=settings.cluster, pipelines=pipelines)
    try:
        # -P keeps the working folder, into which anyone may drop a ray.py, off the import path.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fluxdrop.cluster.examination"],
            input=msgspec.json.encode(question),
            capture_output=True,
            timeout=_EXAMINATION_SECONDS,
            check=False,
            env=os.environ,
        )
        return msgspec.json.decode(done.stdout, type=Examination)
    except subprocess.TimeoutExpired as error:
        raise FluxdropError(
            f"The hosts were not examined within {_EXAMINATION_SECONDS} seconds",
            hint="fluxdrop status names those that do not answer.",
            kind="cluster",
        ) from error
    except msgspec.DecodeError as error:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise FluxdropError(
            f"The process that examines the hosts failed: {said[-1] if said else done.returncode}",
            kind="cluster",
        ) from error


def findings(found: Examination) -> Iterator[Finding]:
    """Yield what is to be said of the cluster, and of each host."""
    if found.message:
        yield Finding("cluster", "broken", found.message, found.hint)
        return
    for name, reason in found.unreadable.items():
        yield Finding(
            f"pipeline {name}", "broken", reason, "Correct it on this machine, the station."
        )
    if not found.hosts:
        yield Finding(
            "cluster",
            "broken",
            "it has no host but the station, which has no GPU",
            "On each host run: fluxdrop service install --cluster-host STATION (docs/cluster.md)",
        )
    for host in found.hosts:
        for finding in _of_host(host, found.digests):
            yield finding._replace(check=_short(host.name), says=_short(finding.says))
    yield from _classes(found.hosts)


def _of_host(host: ExaminedHost, digests: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the findings about *host*, whose check is filled in later, by the *digests* of the station's pipelines."""
    facts, report = host.facts, host.report
    if facts is not None and facts.version != __version__:
        yield Finding(
            "",
            "broken",
            f"fluxdrop {facts.version}, and this station has {__version__}: it is not used",
            "Install the same version on both, and restart its unit.",
        )
        return
    if host.problem:
        yield Finding(
            "", "broken", host.problem, f"Look at its log; its address is {host.address}."
        )
    if facts is not None and facts.problem:
        yield Finding("", "broken", facts.problem, "It is not used until that is mended.")
    if facts is None or report is None:
        return
    names = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield Finding("", "ok", names)
    yield Finding("", "ok", f"class: {facts.host_class}")
    if report.problem:
        yield Finding("", "broken", report.problem, "Correct its host.toml.")
    yield from _pipelines(report, digests)
    yield from _safety(report)
    free = f"{report.free_bytes / 1000**3:,.1f} GB free in {report.disk}"
    scarce = report.free_bytes < _SPACE_NOTE
    yield Finding("", "note" if scarce else "ok", free, "Make room there." if scarce else "")
    yield from _clock(host)
    yield from _picture(host)


def _pipelines(report: HostReport, digests: Mapping[str, str]) -> Iterator[Finding]:
    for name, digest in digests.items():
        one = report.pipelines.get(name)
        if one is None:
            continue
        if one.digest and one.digest != digest:
            says = f"pipeline {name}: it is {one.digest[:12]} there, and {digest[:12]} here"
            yield Finding("", "broken", says, "Install fluxdrop again there.")
            continue
        if one.problem:
            yield Finding(
                "", "note", f"pipeline {name}: {one.problem}", "Others make its pictures."
            )
            continue
        size = f" ({one.size / 1000**3:,.1f} GB)" if one.size else ""
        place = {
            "embedded": "comes with fluxdrop",
            "station": f"comes from the station when it is needed{size}",
            "hub": "comes from the hub",
        }.get(one.place, f"at {one.place}")
        shown = digest if one.place == "hub" else digest[:12]
        yield Finding("", "ok", f"pipeline {name} {shown}: {place}")


def _safety(report: HostReport) -> Iterator[Finding]:
    tls = "with TLS" if report.tls else "without TLS, so for a trusted network only"
    if report.token:
        yield Finding("", "ok", f"asks for the token, {tls}")
    else:
        yield Finding(
            "",
            "broken",
            "asks for no token: whoever reaches it can run code there",
            "Start it with its unit: fluxdrop service install --cluster-host STATION",
        )


def _clock(host: ExaminedHost) -> Iterator[Finding]:
    if host.clock_seconds is None:
        return
    side = "ahead of" if host.clock_seconds > 0 else "behind"
    says = f"its clock is {abs(host.clock_seconds):.2f} s {side} this one"
    if abs(host.clock_seconds) > _MAX_CLOCK_OFFSET_SECONDS:
        yield Finding(
            "", "note", says, "Run an NTP client on both, so that their logs can be compared."
        )
    else:
        yield Finding("", "ok", says)


def _picture(host: ExaminedHost) -> Iterator[Finding]:
    made = host.picture
    if made is None:
        if not host.problem:
            yield Finding("", "note", "its GPUs are in use, so no picture was made to compare")
    elif made.problem:
        yield Finding("", "broken", f"no picture can be made: {made.problem}", "Look at its log.")
    else:
        yield Finding("", "ok", f"a picture of 2 steps in {made.seconds:.1f} s: {made.sha256[:12]}")


def _classes(hosts: Sequence[ExaminedHost]) -> Iterator[Finding]:
    """Yield how many kinds of hosts there are, and which of one class made other bytes than the first of it."""
    first: dict[str, ExaminedHost] = {}
    for host in hosts:
        if host.facts is None or host.picture is None or not host.picture.sha256:
            continue
        of_class = first.setdefault(host.facts.host_class, host)
        if of_class.picture is not None and of_class.picture.sha256 != host.picture.sha256:
            yield Finding(
                _short(host.name),
                "broken",
                f"it made other bytes than {_short(of_class.name)}, which is of the same class",
                "Compare their drivers and installed packages (pip freeze).",
            )
    if len(first) > 1:
        yield Finding(
            "classes",
            "note",
            f"hosts of {len(first)} classes, on which the same seed can give other bits",
            'hosts = "alike" keeps the root to one class.',
        )
    elif first:
        yield Finding("classes", "ok", "all are of one class: the same seed gives the same bits")


def _short(text: str) -> str:
    """Return *text*, which another machine wrote, in printable form and not longer than fits a report."""
    return printable(text)[:_MAX_TEXT]
