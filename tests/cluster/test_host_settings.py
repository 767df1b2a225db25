"""The settings of a GPU host: its own file wins over the station's, and errors name its keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxdrop.config import HostSettings, PipelineTable, Settings, host_file, read_host_settings
from fluxdrop.errors import FluxdropError
from fluxdrop.ownership import load_trusted_host

TEXT = """
device = "cuda"
dtype = "float16"
generator_max_bytes = 8_000_000_000
folders = ["/nfs/models"]

[pipelines.sdxl]
dtype = "bfloat16"
vae_tiling = true
"""


def read(tmp_path: Path, text: str) -> HostSettings:
    file = tmp_path / "host.toml"
    file.write_text(text)
    return read_host_settings(file)


def test_the_host_wins_over_the_station(tmp_path: Path) -> None:
    """A pipeline's own table wins over the file's keys, these over the station's; the rest is the station's."""
    host = read(tmp_path, TEXT)
    station = PipelineTable(source="sdxl", device="cpu", offload="model", steps=4)
    assert host.table("other", station) == PipelineTable(
        source="sdxl", device="cuda", dtype="float16", offload="model", steps=4
    )
    table = host.table("sdxl", station)
    assert (table.device, table.dtype, table.vae_tiling) == ("cuda", "bfloat16", True)
    settings = Settings(engine="julia", generator_max_bytes=1)
    applied = host.applied(settings)
    assert (applied.generator_max_bytes, applied.engine) == (8_000_000_000, "julia")
    assert HostSettings().applied(settings) == settings


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('devise = "cuda"', r"unknown key devise\. Did you mean device"),
        (
            "[pipelines.sdxl]\ndtipe = 1",
            r"unknown key pipelines\.sdxl\.dtipe.*pipelines\.sdxl\.dtype",
        ),
        ('dtype = "float8"', r"dtype in .*host\.toml is 'float8'"),
        ("pipelines = 3", r"pipelines in .*host\.toml is 3"),
        ("cache_max_bytes = 0", r"cache_max_bytes in .*host\.toml is 0"),
        ("device = ", "host.toml cannot be read"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path: Path, text: str, says: str) -> None:
    """Unknown keys and wrong values are refused as in fluxdrop.toml."""
    with pytest.raises(FluxdropError, match=says) as refused:
        read(tmp_path, text)
    assert refused.value.kind == "config"


def test_the_variable_names_the_file(tmp_path: Path) -> None:
    """A file that FLUXDROP_HOST_CONFIG names has to exist, /etc/fluxdrop/host.toml need not."""
    assert host_file({}) == Path("/etc/fluxdrop/host.toml")
    environ = {"FLUXDROP_HOST_CONFIG": str(tmp_path / "host.toml")}
    with pytest.raises(FluxdropError, match="FLUXDROP_HOST_CONFIG names, does not exist"):
        load_trusted_host(environ)
    (tmp_path / "host.toml").write_text("hub = true")
    assert load_trusted_host(environ).hub


def test_a_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    """Whoever can write the file could have any folder's pipelines loaded."""
    file = tmp_path / "host.toml"
    file.write_text("")
    file.chmod(0o666)
    with pytest.raises(FluxdropError, match=r"host\.toml is not used.*chmod go-w"):
        load_trusted_host({"FLUXDROP_HOST_CONFIG": str(file)})
