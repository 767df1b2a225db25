"""Map the sampler names that Stable Diffusion users know to diffusers schedulers.

The names are stable-diffusion-webui's (``modules/sd_samplers_kdiffusion.py``), with DPM++ 3M and TCD. The mapping is
the table in diffusers' documentation, "Schedulers". `sampler_names` has the names of other programs.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.sampler_names import nearest, our_name

_Samplers = dict[str, tuple[str, dict[str, Any]]]
"""By name: the class of the scheduler, and options of its configuration."""

SAMPLERS: _Samplers = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ 2M": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    "DPM++ 3M": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 3},
    ),
    "DPM++ 2M SDE": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
    ),
    "DPM++ 3M SDE": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
    ),
    "DPM++ SDE": ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver++"}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}),
    "DPM++ 2M SDE Heun": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "solver_type": "heun"},
    ),
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
}

_NO_SIGMA_SCHEDULE = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}

# The name of a schedule follows that of the sampler: "DPM++ 2M Karras".
SCHEDULES: dict[str, dict[str, Any]] = {
    "": _NO_SIGMA_SCHEDULE,
    "Karras": {**_NO_SIGMA_SCHEDULE, "use_karras_sigmas": True},
    "Exponential": {**_NO_SIGMA_SCHEDULE, "use_exponential_sigmas": True},
    "Beta": {**_NO_SIGMA_SCHEDULE, "use_beta_sigmas": True},
    "SGM Uniform": {**_NO_SIGMA_SCHEDULE, "timestep_spacing": "trailing"},
    "Simple": {**_NO_SIGMA_SCHEDULE, "timestep_spacing": "trailing"},
}

# For flow-matching models, such as SD3 and FLUX.
_FLOW_SAMPLERS: _Samplers = {
    "Euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "Heun": ("FlowMatchHeunDiscreteScheduler", {}),
}

# With a model that was trained down to nearly no signal (sigma 20,000), these samplers and schedules
# make wrong colours: the first step of a second-order sampler multiplies its error by the ratio of
# the two sigmas, and a schedule over sigma wastes its steps at large sigmas. They work when they
# begin at a smaller sigma, at which there is hardly any signal either (SD 1.5 begins at 14.6).
_FINITE_SIGMA_SAMPLERS = ("Heun", "DPM2", "DPM2 a")
_FINITE_SIGMA_SCHEDULES = ("Karras", "Exponential", "Beta")
_MAX_SIGMA = 20.0
# Observed to make wrong colours with such a model even so.
_WRONG_COLOURS = ("DPM++ 2M SDE Beta", "DPM++ 2M SDE Heun Beta", "DPM++ 3M SDE Beta")

_NAMES = {
    f"{sampler} {schedule}".strip().casefold(): (sampler, schedule)
    for sampler in SAMPLERS
    for schedule in SCHEDULES
}
# What JSON for diffusers names: the class of a scheduler, which stands for the first sampler of this class.
_BY_CLASS = {
    scheduler: sampler
    for table in (_FLOW_SAMPLERS, SAMPLERS)
    for sampler, (scheduler, _unused) in reversed(table.items())
}


def check(name: str) -> None:
    """Raise FluxdropError, of kind ``prompt``, if no pipeline can have the sampler *name*; diffusers is not loaded."""
    is_scheduler = name.casefold().endswith("scheduler")
    if not is_scheduler and our_name(_BY_CLASS.get(name, name)).casefold() not in _NAMES:
        raise _unknown(name)


def choose(name: str | None, own: Any) -> tuple[str, Any]:
    """Make the scheduler for a sampler name.

    Args:
        name: The sampler, perhaps with a schedule, or the class of *own*; None for the pipeline's own.
        own: The pipeline's own scheduler.

    Returns:
        The full name, which chooses the same scheduler again, and a new scheduler.

    Raises:
        FluxdropError: Kind ``prompt``, when the name is unknown or does not fit the pipeline; kind
            ``generator``, when the scheduler needs a package that is not installed.
    """
    import diffusers

    name = _sampler_name(own) if name is None else name
    if name.casefold() == type(own).__name__.casefold():
        return type(own).__name__, _begin_at_first_step(type(own).from_config(own.config))
    usual = our_name(_BY_CLASS.get(name, name))
    if usual.casefold() not in _NAMES:
        raise _unknown(name)
    sampler, schedule = _NAMES[usual.casefold()]
    full = f"{sampler} {schedule}".strip()
    samplers = _samplers_for(own)
    scheduler_class = getattr(diffusers, samplers[sampler][0]) if sampler in samplers else None
    fits = samplers is _FLOW_SAMPLERS or scheduler_class in (type(own), *own.compatibles)
    # diffusers lists these as compatible with no scheduler, but they are usually made from another's configuration.
    fits |= sampler in ("LCM", "TCD") and hasattr(own, "alphas_cumprod")
    if scheduler_class is None or not fits:
        raise FluxdropError(
            f"Sampler {full!r} does not fit this pipeline, which has the {type(own).__name__}.",
            hint="Leave Sampler out to use that one.",
            kind="prompt",
        )
    try:
        options = _options(sampler, schedule, samplers, scheduler_class)
        if sampler in _FINITE_SIGMA_SAMPLERS or schedule in _FINITE_SIGMA_SCHEDULES:
            options |= _finite_betas(own)
        scheduler = scheduler_class.from_config(own.config, **options)
    except ImportError as error:
        raise FluxdropError(
            f"Sampler {full!r} needs a package that is not installed: {error.name or 'scipy'}.",
            kind="generator",
        ) from error
    return full, _begin_at_first_step(scheduler)


def warnings(name: str, own: Any) -> list[str]:
    """Return warnings about the sampler *name*, as `choose` returned it, with the pipeline's scheduler *own*."""
    if name not in _WRONG_COLOURS or not _finite_betas(own):
        return []
    return [f"Sampler {name} is known to draw wrong colours with this pipeline; others do not."]


def _unknown(name: str) -> FluxdropError:
    """Return the error for the *name* of a sampler that there is not."""
    if (instead := nearest(name)) is not None:
        message = f"Sampler {name!r} is not among diffusers' schedulers."
        return FluxdropError(message, hint=f"The nearest is {instead!r}.", kind="prompt")
    return FluxdropError(
        f"Sampler {name!r} is not known.",
        hint=f"Known are {', '.join(SAMPLERS)}, also followed by one of"
        f" {', '.join(filter(None, SCHEDULES))}.",
        kind="prompt",
    )


def _samplers_for(own: Any) -> _Samplers:
    """Return the samplers for pipelines with the scheduler *own*."""
    return _FLOW_SAMPLERS if type(own).__name__.startswith("FlowMatch") else SAMPLERS


def _options(
    sampler: str, schedule: str, samplers: _Samplers, scheduler_class: Any
) -> dict[str, Any]:
    """Return the options of the sampler and schedule; raise if the class does not take one that is set."""
    wanted = samplers[sampler][1] | SCHEDULES[schedule]
    if samplers is _FLOW_SAMPLERS:
        # The schedulers for flow matching space their timesteps in this way already.
        wanted.pop("timestep_spacing", None)
    accepted = inspect.signature(scheduler_class.__init__).parameters
    if any(value and key not in accepted for key, value in wanted.items()):
        raise FluxdropError(
            f"Sampler {sampler!r} has no schedule {schedule!r}.",
            hint=f"Ask for {sampler!r} alone, or for 'DPM++ 2M {schedule}'.",
            kind="prompt",
        )
    return {key: value for key, value in wanted.items() if key in accepted}


def _finite_betas(own: Any) -> dict[str, Any]:
    """Return an option with the betas of *own* limited to `_MAX_SIGMA`; empty if they do not exceed it."""
    if not hasattr(own, "alphas_cumprod"):
        return {}
    kept = own.alphas_cumprod.double()
    least = 1 / (1 + _MAX_SIGMA**2)
    if kept[-1] >= least:
        return {}
    kept = kept.clamp(min=least).tolist()
    return {"trained_betas": [1 - b / a for a, b in zip([1.0, *kept], kept, strict=False)]}


def _begin_at_first_step(scheduler: Any) -> Any:
    """Make *scheduler* begin with its first step, where a picture from a prompt begins, and return it.

    By itself it searches for the first timestep. Where several timesteps are equal, as with Karras
    sigmas for a model that was trained down to nearly no signal, it would begin with the second.
    """
    set_timesteps = scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def set_timesteps_and_begin(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        scheduler.set_begin_index(0)

    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_timesteps = set_timesteps_and_begin
    return scheduler


def _sampler_name(own: Any) -> str:
    """Return the sampler name of the scheduler *own*; its class when no name means exactly its options."""
    samplers = _samplers_for(own)
    for sampler, schedule in _NAMES.values():
        if sampler not in samplers:
            continue
        wanted = samplers[sampler][1] | SCHEDULES[schedule]
        if samplers[sampler][0] == type(own).__name__ and all(
            own.config.get(key, False) == value for key, value in wanted.items()
        ):
            return f"{sampler} {schedule}".strip()
    return type(own).__name__
