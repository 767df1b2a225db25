"""The samplers and schedules of other programs by the names that `samplers` knows.

The names are those of ComfyUI (``comfy/samplers.py``), Fooocus (``modules/flags.py``), SwarmUI, InvokeAI
(``invokeai/backend/stable_diffusion/schedulers``), NovelAI, Draw Things and Easy Diffusion.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Our name, and the others' names beside it. "k_" before a name, as NovelAI writes it, and "_gpu" behind it mean
# nothing.
_SAMPLERS = {
    "Euler": "euler",
    "Euler a": "euler_a euler_ancestral",
    "DPM++ 2M": "dpm++_2m dpmpp_2m dpmsolver++",
    "DPM++ 2M SDE": "dpm++_2m_sde dpmpp_2m_sde",
    "DPM++ 2M SDE Heun": "dpm++_2m_sde_heun dpmpp_2m_sde_heun",
    "DPM++ 3M": "dpm++_3m dpmpp_3m",
    "DPM++ 3M SDE": "dpm++_3m_sde dpmpp_3m_sde",
    "DPM++ SDE": "dpm++_sde dpmpp_sde dpmpp_2s",
    "DPM2": "dpm2 dpm_2 kdpm_2",
    "DPM2 a": "dpm2_a dpm_2_ancestral dpm_2_a kdpm_2_a",
    "Heun": "heun",
    "LMS": "lms",
    "DDIM": "ddim ddim_v3",
    "DDPM": "ddpm",
    "PLMS": "plms pndm",
    "LCM": "lcm",
    "TCD": "tcd",
    "UniPC": "unipc uni_pc uni_pc_bh2",
    "DEIS": "deis",
}
# "" is the sampler's own schedule. k-diffusion's polyexponential schedule is the exponential one for its usual rho.
_SCHEDULES = {
    "": "normal automatic uniform ddim_uniform ddim default native lcm tcd",
    "Karras": "karras k",
    "Exponential": "exponential polyexponential",
    "Beta": "beta",
    "SGM Uniform": "sgm_uniform trailing",
    "Simple": "simple",
}
_NEAREST_SAMPLERS = {
    "Euler": "euler_cfg_pp gradient_estimation",
    "Euler a": "euler_ancestral_cfg_pp euler_a_substep",
    "DPM++ 2M": "dpm_fast dpmpp_2m_cfg_pp res_multistep res_multistep_cfg_pp restart dpm_solver_stability",
    "DPM++ 2M SDE": "dpm_adaptive sa_solver sa_solver_pece res_multistep_ancestral exp_heun_2_x0_sde",
    "DPM++ 3M SDE": "er_sde",
    "DPM++ SDE": "dpm++_2s_a dpmpp_2s_a dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpm++_sde_substep seeds_2 seeds_3",
    "Heun": "heunpp2 heun++ exp_heun_2_x0",
    "DDIM": "ddim_cfg++ ddim_cfg_pp",
    "PLMS": "ipndm ipndm_v",
}
_NEAREST_SCHEDULES = {
    "Karras": "align_your_steps ays kl_optimal gits align_your_steps_gits align_your_steps_11 align_your_steps_32",
    "SGM Uniform": "turbo linear_quadratic",
    "Simple": "flux2 ltxv",
}


def _by_name(table: dict[str, str]) -> dict[str, str]:
    return {name: ours for ours, names in table.items() for name in names.split()}


_OUR_SAMPLERS, _OUR_SCHEDULES = _by_name(_SAMPLERS), _by_name(_SCHEDULES)
_SAMPLERS_INSTEAD, _SCHEDULES_INSTEAD = _by_name(_NEAREST_SAMPLERS), _by_name(_NEAREST_SCHEDULES)


class _Split(NamedTuple):
    """A name divided into sampler and schedule, in the form of the tables' keys."""

    sampler: str
    schedule: str


def our_name(sampler: str, schedule: str = "") -> str:
    """Return the name by which `samplers` knows another program's *sampler*, with *schedule* behind it.

    The sampler's name may end with a schedule, as in ``dpmpp_2m_karras``; *schedule* goes before it. A part that is
    not known stays as it is.
    """
    split = _split(sampler)
    if split is None or split.sampler not in _OUR_SAMPLERS:
        ours, wanted = sampler, schedule
    else:
        ours, wanted = _OUR_SAMPLERS[split.sampler], schedule.strip() or split.schedule
    wanted = _OUR_SCHEDULES.get(_key(wanted), wanted)
    return f"{ours} {wanted}" if wanted else ours


def nearest(name: str) -> str | None:
    """Return what comes nearest to a sampler that diffusers does not have; None if *name* is not known at all."""
    split = _split(name)
    if split is None:
        return None
    sampler = _SAMPLERS_INSTEAD.get(split.sampler) or _OUR_SAMPLERS[split.sampler]
    schedule = _SCHEDULES_INSTEAD.get(split.schedule) or _OUR_SCHEDULES.get(split.schedule, "")
    return f"{sampler} {schedule}".strip()


def _split(name: str) -> _Split | None:
    """Return the parts of a *name* of which the tables know both; None if there are none."""
    key = _key(name)
    samplers = _OUR_SAMPLERS.keys() | _SAMPLERS_INSTEAD.keys()
    if key in samplers:
        return _Split(key, "")
    for schedule in _OUR_SCHEDULES.keys() | _SCHEDULES_INSTEAD.keys():
        sampler = key.removesuffix(f"_{schedule}")
        if sampler != key and sampler in samplers:
            return _Split(sampler, schedule)
    return None


def _key(name: str) -> str:
    """Return *name* in the form of the tables' keys."""
    key = re.sub(r"[\s_-]+", "_", name.strip().casefold())
    return key.removeprefix("k_").replace("_gpu", "")
