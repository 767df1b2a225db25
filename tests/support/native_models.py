"""Native Flux models, and Julia projects with a stand-in for Flux that loads in any Julia."""

from __future__ import annotations

from pathlib import Path

TOML = 'labels = ["a", "b", "c"]\noutput = "logits"\n[input]\nsize = [4, 2]\n'
SUMS = """
scale() = parse(Float32, read(joinpath(@__DIR__, "weights.bson"), String))
function build_model()
    factor = scale()
    return x -> factor * reshape(sum(x; dims=(1, 2)), 3, :)
end
"""
FLUX = """
__precompile__(false)
module Flux
struct CUDADevice end
(::CUDADevice)(x) = x
cpu(x) = x
testmode!(model) = model
loaded(name) = any(id -> id.name == name, keys(Base.loaded_modules))
gpu_device(; force=false) = loaded("CUDA") && loaded("cuDNN") ? CUDADevice() : error("No functional GPU device found!")
end
"""


def native(folder: Path, code: str = SUMS, toml: str = TOML) -> Path:
    """A bundle with a native model and its weights."""
    folder.mkdir(exist_ok=True)
    (folder / "model.toml").write_text(toml)
    (folder / "flux_model.jl").write_text(code)
    (folder / "weights.bson").write_text("2.5")
    return folder


def install(project: Path, **packages: str) -> None:
    """Put *packages*, each with its code, into *project*."""
    deps, manifest = ["[deps]"], []
    for number, (name, code) in enumerate(packages.items(), 1):
        uuid = f"00000000-0000-4000-8000-{number:012}"
        source = project / name / "src" / f"{name}.jl"
        source.parent.mkdir(parents=True)
        source.write_text(code)
        (project / name / "Project.toml").write_text(f'name = "{name}"\nuuid = "{uuid}"\n')
        deps.append(f'{name} = "{uuid}"')
        manifest += [f"[[{name}]]", f'path = "{name}"', f'uuid = "{uuid}"', 'version = "0.16.5"']
    (project / "Project.toml").write_text("\n".join(deps) + "\n")
    (project / "Manifest.toml").write_text("\n".join(manifest) + "\n")
