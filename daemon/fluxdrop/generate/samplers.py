"""The samplers that Stable Diffusion users name, as diffusers schedulers.

The names are stable-diffusion-webui's (``modules/sd_samplers_kdiffusion.py``); which scheduler
stands for which is from the table in diffusers' documentation, "Schedulers".
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from fluxdrop.errors import FluxdropError

_Samplers = dict[str, tuple[str, dict[str, Any]]]

SAMPLERS: _Samplers = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ 2M": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
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
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
}

_PLAIN = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}

# A schedule follows a sampler's name: "DPM++ 2M Karras".
SCHEDULES: dict[str, dict[str, Any]] = {
    "": _PLAIN,
    "Karras": {**_PLAIN, "use_karras_sigmas": True},
    "Exponential": {**_PLAIN, "use_exponential_sigmas": True},
    "Beta": {**_PLAIN, "use_beta_sigmas": True},
    "SGM Uniform": {**_PLAIN, "timestep_spacing": "trailing"},
    "Simple": {**_PLAIN, "timestep_spacing": "trailing"},
}

# For models of flow matching, such as SD3 and FLUX.
_FLOW_SAMPLERS: _Samplers = {
    "Euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "Heun": ("FlowMatchHeunDiscreteScheduler", {}),
}

# What these make of a model that was trained down to nearly no signal is wrong in its colours: a
# step of second order from there (sigma 20,000) magnifies its error by the ratio of the two sigmas,
# and schedules over sigma waste their steps up there. Begun at a sigma where the signal is as good
# as drowned (SD 1.5 begins at 14.6) they come out right.
_FROM_A_FINITE_SIGMA = ("Heun", "DPM2", "DPM2 a")
_OVER_SIGMA = ("Karras", "Exponential", "Beta")
_LARGEST_SIGMA = 20.0
# Seen to draw wrong with such a model all the same.
_UNSTEADY = ("DPM++ 2M SDE Beta", "DPM++ 2M SDE Heun Beta", "DPM++ 3M SDE Beta")

_NAMES = {
    f"{sampler} {schedule}".strip().casefold(): (sampler, schedule)
    for sampler in SAMPLERS
    for schedule in SCHEDULES
}


def choose(name: str | None, own: Any) -> tuple[str, Any]:
    """The name and a new scheduler for *name*; None stands for the pipeline's *own* scheduler.

    The name that is returned chooses the same scheduler again. Raises FluxdropError of kind
    ``prompt`` for a name that is not known or does not fit the pipeline.
    """
    import diffusers

    name = _name_of(own) if name is None else name
    if name.casefold() == type(own).__name__.casefold():
        return type(own).__name__, _from_the_top(type(own).from_config(own.config))
    if name.casefold() not in _NAMES:
        raise FluxdropError(
            f"Sampler {name!r} is not known.",
            hint=f"Known are {', '.join(SAMPLERS)}, also followed by one of"
            f" {', '.join(filter(None, SCHEDULES))}.",
            kind="prompt",
        )
    sampler, schedule = _NAMES[name.casefold()]
    full = f"{sampler} {schedule}".strip()
    samplers = _samplers_for(own)
    scheduler_class = getattr(diffusers, samplers[sampler][0]) if sampler in samplers else None
    fits = samplers is _FLOW_SAMPLERS or scheduler_class in (type(own), *own.compatibles)
    # diffusers has LCM in no list, and yet it is made of another's configuration as a rule.
    fits |= sampler == "LCM" and hasattr(own, "alphas_cumprod")
    if scheduler_class is None or not fits:
        raise FluxdropError(
            f"Sampler {full!r} does not fit this pipeline, which has the {type(own).__name__}.",
            hint="Leave Sampler out to use that one.",
            kind="prompt",
        )
    try:
        options = _options(sampler, schedule, samplers, scheduler_class)
        if sampler in _FROM_A_FINITE_SIGMA or schedule in _OVER_SIGMA:
            options |= _finite_betas(own)
        scheduler = scheduler_class.from_config(own.config, **options)
    except ImportError as error:
        raise FluxdropError(
            f"Sampler {full!r} needs a package that is not installed: {error.name or 'scipy'}.",
            kind="generator",
        ) from error
    return full, _from_the_top(scheduler)


def warnings(name: str, own: Any) -> list[str]:
    """What is to be said of the sampler *name*, as `choose` returns it, with the pipeline's *own*."""
    if name not in _UNSTEADY or not _finite_betas(own):
        return []
    return [f"Sampler {name} is known to draw wrong colours with this pipeline; others do not."]


def _samplers_for(own: Any) -> _Samplers:
    return _FLOW_SAMPLERS if type(own).__name__.startswith("FlowMatch") else SAMPLERS


def _options(
    sampler: str, schedule: str, samplers: _Samplers, scheduler_class: Any
) -> dict[str, Any]:
    wanted = samplers[sampler][1] | SCHEDULES[schedule]
    if samplers is _FLOW_SAMPLERS:
        # Its steps are spaced so by themselves.
        wanted.pop("timestep_spacing", None)
    accepted = inspect.signature(scheduler_class.__init__).parameters
    if any(value and key not in accepted for key, value in wanted.items()):
        raise FluxdropError(f"Sampler {sampler!r} has no schedule {schedule!r}.", kind="prompt")
    return {key: value for key, value in wanted.items() if key in accepted}


def _finite_betas(own: Any) -> dict[str, Any]:
    """The betas of *own* for a noise that begins at `_LARGEST_SIGMA`, where it begins above."""
    if not hasattr(own, "alphas_cumprod"):
        return {}
    kept = own.alphas_cumprod.double()
    least = 1 / (1 + _LARGEST_SIGMA**2)
    if kept[-1] >= least:
        return {}
    kept = kept.clamp(min=least).tolist()
    return {"trained_betas": [1 - b / a for a, b in zip([1.0, *kept], kept, strict=False)]}


def _from_the_top(scheduler: Any) -> Any:
    """Have *scheduler* begin with its first step, which is where a picture from a prompt begins.

    It would look its place up by the first timestep, and where several timesteps are the same, as
    with Karras sigmas for a model that was trained down to nearly no signal, take the second.
    """
    set_timesteps = scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def set_timesteps_and_begin(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        scheduler.set_begin_index(0)

    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_timesteps = set_timesteps_and_begin
    return scheduler


def _name_of(own: Any) -> str:
    """The name for *own*: its class where no name stands for exactly its options."""
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
