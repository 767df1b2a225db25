"""The samplers that Stable Diffusion users name, as diffusers schedulers.

The names are stable-diffusion-webui's (``modules/sd_samplers_kdiffusion.py``); which scheduler
stands for which is from the table in diffusers' documentation, "Schedulers".
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from fluxdrop.errors import FluxdropError

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
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
}

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

    if name is None or name.casefold() == type(own).__name__.casefold():
        return _name_of(own), _from_the_top(type(own).from_config(own.config))
    if name.casefold() not in _NAMES:
        raise FluxdropError(
            f"Sampler {name!r} is not known.",
            hint=f"Known are {', '.join(SAMPLERS)}, also followed by one of"
            f" {', '.join(filter(None, SCHEDULES))}.",
            kind="prompt",
        )
    sampler, schedule = _NAMES[name.casefold()]
    full = f"{sampler} {schedule}".strip()
    scheduler_class = getattr(diffusers, SAMPLERS[sampler][0])
    if scheduler_class is not type(own) and scheduler_class not in own.compatibles:
        raise FluxdropError(
            f"Sampler {full!r} does not fit this pipeline, which has the {type(own).__name__}.",
            hint="Leave Sampler out to use that one.",
            kind="prompt",
        )
    try:
        options = _options(sampler, schedule, scheduler_class)
        scheduler = scheduler_class.from_config(own.config, **options)
    except ImportError as error:
        raise FluxdropError(
            f"Sampler {full!r} needs a package that is not installed: {error.name or 'scipy'}.",
            kind="generator",
        ) from error
    return full, _from_the_top(scheduler)


def _options(sampler: str, schedule: str, scheduler_class: Any) -> Mapping[str, Any]:
    accepted = inspect.signature(scheduler_class.__init__).parameters
    wanted = SAMPLERS[sampler][1] | SCHEDULES[schedule]
    missing = [key for key, value in wanted.items() if value and key not in accepted]
    if missing:
        raise FluxdropError(f"Sampler {sampler!r} has no schedule {schedule!r}.", kind="prompt")
    return {key: value for key, value in wanted.items() if key in accepted}


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
    for sampler, schedule in _NAMES.values():
        wanted = SAMPLERS[sampler][1] | SCHEDULES[schedule]
        if SAMPLERS[sampler][0] == type(own).__name__ and all(
            own.config.get(key, False) == value for key, value in wanted.items()
        ):
            return f"{sampler} {schedule}".strip()
    return type(own).__name__
