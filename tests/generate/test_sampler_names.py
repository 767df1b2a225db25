"""Samplers by the names of other programs."""

from __future__ import annotations

import itertools

import pytest

from fluxdrop.generate.sampler_names import nearest, our_name
from fluxdrop.generate.samplers import SAMPLERS, SCHEDULES


@pytest.mark.parametrize(
    ("sampler", "schedule", "expected"),
    [
        # ComfyUI, Fooocus and SwarmUI
        ("dpmpp_2m_karras", "", "DPM++ 2M Karras"),
        ("dpmpp_2m", "karras", "DPM++ 2M Karras"),
        ("dpmpp_2m_karras", "karras", "DPM++ 2M Karras"),
        ("dpmpp_2m_sde_gpu", "karras", "DPM++ 2M SDE Karras"),
        ("dpmpp_2m_sde_gpu_karras", "", "DPM++ 2M SDE Karras"),
        ("dpmpp_3m_sde_gpu", "exponential", "DPM++ 3M SDE Exponential"),
        ("euler_ancestral", "normal", "Euler a"),
        ("euler_ancestral_normal", "", "Euler a"),
        ("euler", "sgm_uniform", "Euler SGM Uniform"),
        ("euler_simple", "", "Euler Simple"),
        ("euler", "beta", "Euler Beta"),
        ("ddim", "ddim_uniform", "DDIM"),
        ("uni_pc_bh2", "normal", "UniPC"),
        ("dpm_2_ancestral", "karras", "DPM2 a Karras"),
        ("heun", "", "Heun"),
        ("lcm", "sgm_uniform", "LCM SGM Uniform"),
        # InvokeAI
        ("dpmpp_2m_k", "", "DPM++ 2M Karras"),
        ("dpmpp_3m", "", "DPM++ 3M"),
        ("kdpm_2_a_k", "", "DPM2 a Karras"),
        ("pndm", "", "PLMS"),
        ("unipc", "", "UniPC"),
        ("euler_a", "", "Euler a"),
        # NovelAI
        ("k_euler_ancestral", "native", "Euler a"),
        ("k_dpmpp_2m", "exponential", "DPM++ 2M Exponential"),
        ("ddim_v3", "", "DDIM"),
        # Draw Things, Easy Diffusion, stable-diffusion-webui
        ("Euler A Trailing", "", "Euler a SGM Uniform"),
        ("DPM++ 2M Karras", "", "DPM++ 2M Karras"),
        ("DPM++ 2M Karras", "Karras", "DPM++ 2M Karras"),
        ("dpm2_a", "", "DPM2 a"),
        ("DPM++ 2M", "Polyexponential", "DPM++ 2M Exponential"),
        ("LMS", "Automatic", "LMS"),
        # not known
        ("my sampler", "", "my sampler"),
        ("my sampler", "karras", "my sampler Karras"),
        ("dpmpp_2m", "mine", "DPM++ 2M mine"),
    ],
)
def test_names(sampler: str, schedule: str, expected: str) -> None:
    """A sampler and a schedule of another program are one name of ours."""
    assert expected == our_name(sampler, schedule)


def test_our_own_names() -> None:
    """Our own names stay what they are."""
    for sampler, schedule in itertools.product(SAMPLERS, SCHEDULES):
        name = f"{sampler} {schedule}".strip()
        assert name == our_name(name) == our_name(sampler, schedule) == our_name(name.lower())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dpm_fast", "DPM++ 2M"),
        ("dpmpp_2s_ancestral_karras", "DPM++ SDE Karras"),
        ("DPM++ 2S a Karras", "DPM++ SDE Karras"),
        ("heunpp2", "Heun"),
        ("euler_cfg_pp", "Euler"),
        ("DPM++ 2M align_your_steps", "DPM++ 2M Karras"),
        ("Euler turbo", "Euler SGM Uniform"),
        ("Wonder", None),
    ],
)
def test_nearest(name: str, expected: str | None) -> None:
    """For what diffusers lacks there is the nearest that we have."""
    assert expected == nearest(name)
    assert expected is None or {expected} & {
        f"{s} {c}".strip() for s in SAMPLERS for c in SCHEDULES
    }
