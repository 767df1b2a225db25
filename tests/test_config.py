"""Settings: where they come from, and what is said of wrong ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from fluxdrop import config
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from support.daemons import fluxdrop


def write(folder: Path, text: str) -> Path:
    """*folder*, with *text* as its fluxdrop.toml."""
    (folder / "fluxdrop.toml").write_text(text)
    return folder


def test_defaults(tmp_path: Path) -> None:
    """Without a file, a variable or a flag every setting has its default."""
    assert Settings() == config.load(tmp_path, environ={})
    assert Settings() == config.load(None, environ={})


@pytest.mark.parametrize(
    ("variable", "flag", "expected"),
    [(None, None, "julia"), ("auto", None, "auto"), ("auto", "onnxruntime", "onnxruntime")],
)
def test_the_later_one_wins(
    tmp_path: Path, variable: str | None, flag: str | None, expected: str
) -> None:
    """A variable is stronger than the file, and a flag stronger than both."""
    root = write(tmp_path, 'engine = "julia"\nbatch_size = 8')
    environ = {"FLUXDROP_ENGINE": variable} if variable else {}
    settings = config.load(root, {"engine": flag}, environ)

    assert (expected, 8) == (settings.engine, settings.batch_size)


def test_types(tmp_path: Path) -> None:
    """Variables are read as their settings' types; an empty one is none; a whole number does for
    seconds.
    """
    root = write(tmp_path, "scan_seconds = 5\n")
    environ = {
        "FLUXDROP_SETTLE_SECONDS": "0.25",
        "FLUXDROP_BATCH_SIZE": "4",
        "FLUXDROP_MODEL": "",
        "FLUXDROP_ROOT": "/elsewhere",
    }
    settings = config.load(root, environ=environ)

    assert (5.0, 0.25, 4) == (settings.scan_seconds, settings.settle_seconds, settings.batch_size)
    assert Settings().model == settings.model


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("setle_seconds", "Did you mean settle_seconds?"),
        ("Engine", "Did you mean engine?"),
        ("weather", "lists the keys"),
    ],
)
def test_unknown_key(tmp_path: Path, key: str, hint: str) -> None:
    """A key that does not exist is refused, with the nearest one that does."""
    root = write(tmp_path, f"{key} = 1")

    with pytest.raises(FluxdropError) as caught:
        config.load(root, environ={})

    assert f"{root / 'fluxdrop.toml'} has the unknown key {key}." == caught.value.message
    assert hint in caught.value.hint
    assert "config" == caught.value.kind


@pytest.mark.parametrize(
    "value", ['"2"', "0", "-1", "true", "nan", "inf", "1e9", "[1]"], ids=lambda value: value
)
def test_wrong_value_in_file(tmp_path: Path, value: str) -> None:
    """A value of the wrong type or range is refused, with its key and its file."""
    root = write(tmp_path, f"settle_seconds = {value}")

    place = f"settle_seconds in {root}/fluxdrop.toml"
    with pytest.raises(FluxdropError, match=f"{place} is .*expected"):
        config.load(root, environ={})


@pytest.mark.parametrize(
    ("name", "value"),
    [("BATCH_SIZE", "many"), ("BATCH_SIZE", "0"), ("ENGINE", "torch"), ("MAX_PIXELS", "1.5")],
)
def test_wrong_value_in_environment(name: str, value: str) -> None:
    """A variable of the wrong type or range is refused by its name."""
    with pytest.raises(FluxdropError, match=f"FLUXDROP_{name} in the environment is '{value}': "):
        config.load(None, environ={f"FLUXDROP_{name}": value})


def test_wrong_flag() -> None:
    """A flag with a wrong value is refused by its name."""
    with pytest.raises(FluxdropError, match="--log-level is 'loud': invalid enum value 'loud'"):
        config.load(None, {"log_level": "loud"}, {})


@pytest.mark.parametrize("data", [b"engine = ", b"engine = '\xff'"])
def test_damaged_file(tmp_path: Path, data: bytes) -> None:
    """A file that is no TOML is refused by its name."""
    (tmp_path / "fluxdrop.toml").write_bytes(data)

    with pytest.raises(FluxdropError, match=r"fluxdrop\.toml cannot be read"):
        config.load(tmp_path, environ={})


def test_unreadable_file(tmp_path: Path) -> None:
    """A file that cannot be opened is refused by its name, too."""
    (tmp_path / "fluxdrop.toml").mkdir()

    with pytest.raises(FluxdropError, match=r"fluxdrop\.toml cannot be read.*Is a directory"):
        config.load(tmp_path, environ={})


def test_every_setting_is_described() -> None:
    """Every setting says what it is for."""
    described = {
        field.name: getattr(field.type, "__metadata__", ())
        for field in msgspec.structs.fields(Settings)
    }

    assert [] == [
        key for key, metas in described.items() if not any(meta.description for meta in metas)
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("FLUXDROP_MODLE", "Did you mean FLUXDROP_MODEL?"),
        ("FLUXDROP_JULIA_PROJEKT", "Did you mean FLUXDROP_JULIA_PROJECT?"),
        ("FLUXDROP_engine", "Did you mean FLUXDROP_"),
    ],
)
def test_unknown_variable(name: str, hint: str) -> None:
    """A FLUXDROP_ variable that means nothing is refused, with the nearest one that does."""
    with pytest.raises(
        FluxdropError, match=f"{name} in the environment is not a setting"
    ) as caught:
        config.load(None, environ={name: "x", "FLUXDROP_ROOT": "/srv", "OTHER": "y"})

    assert caught.value.hint.startswith(hint)


def test_config_command(root: Root) -> None:
    """`fluxdrop config` shows every setting with its strongest place, as a table and as JSON."""
    write(root.path, 'engine = "julia"\nmodel = "one"\nbatch_size = 8\nmax_pixels = 9\n')
    root.model_in_use.write_text("two\n")
    asked = ("config", "--root", root.path, "--log-level", "debug")
    shown = json.loads(fluxdrop(*asked, "--json", engine="onnxruntime", batch_size=4).stdout)
    table = fluxdrop(*asked, engine="onnxruntime").stdout

    file = str(root.path / "fluxdrop.toml")
    expected = {
        "engine": {"value": "onnxruntime", "from": "FLUXDROP_ENGINE"},
        "model": {"value": "two", "from": "model use"},
        "batch_size": {"value": 4, "from": "FLUXDROP_BATCH_SIZE"},
        "max_pixels": {"value": 9, "from": file},
        "log_level": {"value": "debug", "from": "--log-level"},
        "scan_seconds": {"value": 30.0, "from": "default"},
    }

    assert expected == {key: shown[key] for key in expected}
    assert list(Settings.__struct_fields__) == list(shown)
    assert ["engine", '"onnxruntime"', "FLUXDROP_ENGINE"] == table.splitlines()[1].split()


def test_config_command_prints_toml(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values that `fluxdrop config` shows mean the same settings in fluxdrop.toml."""
    text = r"""
        gallery = false
        settle_seconds = 1e-7
        loras = 'a "b" \c'
        model = "\u007F\u0001"
        [pipelines.a-1]
        source = "x"
        vae_tiling = true
        guidance_scale = inf
        [pipelines."a b"]
        source = "y"
    """
    write(root.path, text)
    monkeypatch.setenv("COLUMNS", "1000")
    lines = fluxdrop("config", "--root", root.path).stdout.splitlines()

    cells = [re.split(" {2,}", line.strip()) for line in lines[1:]]
    shown = "\n".join(f"{key} = {value}" for key, value, _place in cells)

    expected = config.load(root.path, environ={})
    assert expected == config.load(write(root.path, shown), environ={})


def test_config_command_refuses(root: Root) -> None:
    """`fluxdrop config` says what is wrong in one sentence and the exit code 2."""
    write(root.path, "batch_sise = 8")
    done = fluxdrop("config", "--root", root.path)

    assert 2 == done.returncode
    assert done.stderr.endswith("unknown key batch_sise. Did you mean batch_size?\n")


def test_pipelines(tmp_path: Path) -> None:
    """Further pipelines are tables of the file, each with its own keys."""
    root = write(tmp_path, '[pipelines.xl]\nsource = "someone/xl"\ndtype = "bfloat16"\nsteps = 4\n')
    settings = config.load(root, environ={})

    expected = config.PipelineTable(source="someone/xl", dtype="bfloat16", steps=4)
    assert {"xl": expected} == settings.pipelines


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            'sorce = "x"',
            "has the unknown key pipelines.xl.sorce. Did you mean pipelines.xl.source?",
        ),
        ("steps = 4", "missing required field `source`"),
        ('source = "x"\ndtype = "int8"', "invalid enum value 'int8'"),
    ],
)
def test_wrong_pipelines(tmp_path: Path, table: str, sentence: str) -> None:
    """What is wrong in a pipeline's table is told with its key and the file."""
    root = write(tmp_path, f"[pipelines.xl]\n{table}\n")

    with pytest.raises(FluxdropError, match=f"(?s)fluxdrop.toml.*{sentence}"):
        config.load(root, environ={})


FOLDERS = {
    "../x": ("leads out of inbox/", "x"),
    "/x": ("absolute", "x"),
    "a//b": ("empty or a dot", "a/b"),
    "a/./b/": ("empty or a dot", "a/b"),
    "": ("empty or a dot", "xray"),
    "inbox/x": ("path below inbox/", "x"),
    "a\\\\b": ("divided by /", "a/b"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_that_is_none(tmp_path: Path, name: str) -> None:
    """A table for what is no folder below inbox/ is refused, with the nearest name that is one."""
    (tmp_path / "fluxdrop.toml").write_text(f'[folders."{name}"]\nmodel = "m"\n')
    reason, nearest = FOLDERS[name]

    with pytest.raises(FluxdropError, match=re.escape(reason)) as info:
        config.load(tmp_path, environ={})

    assert f'Write [folders."{nearest}"].' == info.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[folders.x]\nmodle = "m"', "unknown key folders.x.modle. Did you mean folders.x.model?"),
        ('[folders.x]\nmodel = "m"\nmodels = ["n"]', "both model and models"),
        ('[folders.x]\nmodels = ["m", "m"]', "names one twice"),
        ("[folders.x]\nmodels = []", "length >= 1"),
        ('[folders.x]\n[folders.y]\nmodels = "m"', "folders.y.models in "),
        ('[folders.y]\nmodels = "m"', "is 'm': expected `array`, got `str`."),
        ("[folders.x]\nmodels = [1]", "is [1]: expected `str`, got `int` - at `$[0]`."),
        ("folders.x = 3", "fluxdrop.toml is 3: expected a table."),
        ("[folders.x]\nwidth = 65", "multiple of 8"),
        ("[folders.x]\nsteps = 200", "max_steps is 150"),
        ('[folders.x]\n[folders."X"]', "the same folder as 'x'"),
        ("[folders.'.x']", "hidden folder"),
    ],
)
def test_folder_table_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    """A table with an unknown key, a wrong value or a contradiction is refused, and told which."""
    (tmp_path / "fluxdrop.toml").write_text(text)

    with pytest.raises(FluxdropError) as info:
        config.load(tmp_path, environ={})

    assert says in str(info.value)


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("xray/a.png", "xray"),
        ("xray/deep/er/a.png", "xray"),
        ("xray/hands/a.png", "xray/hands"),
        ("XRAY/Hands/a.png", "xray/hands"),
        ("Ro\u0308ntgen/a.png", "R\u00f6ntgen"),
        ("xrays/a.png", None),
        ("xray", None),
        ("xray.png", None),
        ("a/xray/b.png", None),
    ],
)
def test_folder_of_a_file(source: str, folder: str | None) -> None:
    """A file belongs to the most specific folder above it, whatever a share makes of capitals and accents."""
    names = ("xray", "xray/hands", "R\u00f6ntgen")

    assert folder == config.folder_of(dict.fromkeys(names, config.FolderTable()), source)
