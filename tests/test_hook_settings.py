"""The table [hooks]: what may stand there, and who may choose a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxdrop import config
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from support.daemons import fluxdrop
from support.used_root import QUICK


def write(folder: Path, text: str) -> Path:
    """Write *text* as the settings of *folder*."""
    (folder / "fluxdrop.toml").write_text(text)
    return folder


def test_hooks(tmp_path: Path) -> None:
    """A hook is a list of words or a URL; none is set by default."""
    root = write(
        tmp_path,
        '[hooks]\non_done = ["store", "a b"]\non_failed = "https://lab.example:8443/x?y=1"\n',
    )

    hooks = config.load(root, environ={}).hooks

    assert (["store", "a b"], "https://lab.example:8443/x?y=1") == (hooks.on_done, hooks.on_failed)
    assert ("", "") == (config.Settings().hooks.on_done, config.Settings().hooks.on_failed)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("on_done = []", "hooks.on_done in .* is a command without a name"),
        ('on_done = ["a\\u0000b"]', "has a NUL character"),
        ('on_done = "store results"', "which is neither a command nor a URL"),
        ('on_done = "file:///etc/passwd"', "which is neither a command nor a URL"),
        ('on_done = "http:///x"', "which is neither a command nor a URL"),
        ('on_done = "http://h:99999/"', "is no URL"),
        ('on_failed = "https://me:password@h/"', "hooks.on_failed in .* has a password in its URL"),
        ('on_done = "http://h/a b"', "escape spaces"),
        ('on_done = "http://h/a\\r\\nx: y"', "escape spaces|which no server"),
        ('on_done = "http://h/#x"', "omit #"),
        ("on_done = 3", "expected `str | array`, got `int`"),
        ('on_dome = "http://h/"', "unknown key hooks.on_dome. Did you mean hooks.on_done?"),
        ("timeout_seconds = 0", "expected `float` > 0"),
    ],
)
def test_wrong_hooks(tmp_path: Path, table: str, sentence: str) -> None:
    """What is no hook is told with its key and the file; a password is not repeated."""
    with pytest.raises(FluxdropError, match=f"(?s){sentence}") as caught:
        config.load(write(tmp_path, f"[hooks]\n{table}\n"), environ={})

    assert "fluxdrop.toml" in caught.value.message
    assert "password@" not in caught.value.message


@pytest.mark.slow
def test_commands_in_a_shared_root(used: Root, tmp_path: Path) -> None:
    """A command is refused where others can change the settings or the program, also with shared_root; a URL is not."""
    program = tmp_path / "hook.sh"
    program.write_text("#!/bin/sh\ncat > /dev/null\n")
    program.chmod(0o755)
    toml = used.path / "fluxdrop.toml"
    toml.write_text(f'[hooks]\non_done = ["{program}"]\n')
    flags = ("run", "--once", "--root", used.path)

    alone = fluxdrop(*flags, **QUICK)
    program.chmod(0o777)
    program_of_all = fluxdrop(*flags, **QUICK)
    program.chmod(0o755)
    used.path.chmod(0o777)
    shared = fluxdrop(*flags, shared_root="true", **QUICK)
    toml.write_text('[hooks]\non_done = "http://127.0.0.1:1/"\n')
    url = fluxdrop(*flags, shared_root="true", **QUICK)

    assert [0, 2, 2, 0] == [one.returncode for one in (alone, program_of_all, shared, url)]
    assert f"{program} may be written by everybody" in program_of_all.stderr
    assert f"{used.path} may be written by everybody" in shared.stderr
    assert "A command in [hooks] is run only where nobody else can choose" in shared.stderr


@pytest.mark.slow
def test_wrong_secret(used: Root, tmp_path: Path) -> None:
    """A secret that is missing or is none keeps the daemon from starting, in one sentence."""
    toml = used.path / "fluxdrop.toml"
    text = '[hooks]\non_done = "http://127.0.0.1:1/"\nsecret_file = "{}"\n'
    (tmp_path / "secret").write_text("hunter2")
    flags = ("run", "--once", "--root", used.path)

    toml.write_text(text.format(tmp_path / "none"))
    missing = fluxdrop(*flags, **QUICK)
    toml.write_text(text.format(tmp_path / "secret"))
    none = fluxdrop(*flags, **QUICK)

    assert [2, 2] == [missing.returncode, none.returncode]
    assert "the secret_file of [hooks], cannot be read: No such file" in missing.stderr
    assert "is no secret for hooks" in none.stderr
    assert "hunter2" not in none.stderr
