"""What `fluxdrop doctor` says of the configured folders."""

from __future__ import annotations

import pytest

from fluxdrop.config import FolderTable, Settings
from fluxdrop.doctor.contents import inbox_folders
from fluxdrop.files.layout import Root


def test_each_fault(root: Root) -> None:
    """All that is wrong with a folder is told, and a folder that is right is told with its models."""
    wrong = FolderTable(models=["none", "round-or-angular", "nor-this"], sampler="foo")
    right = FolderTable(model="round-or-angular", sampler="DPM++ 2M Karras")
    (root.inbox / "b").mkdir()

    found = list(inbox_folders(root, Settings(folders={"a": wrong, "b": right})))

    assert ["inbox/a"] * 3 + ["inbox/b"] == [finding.check for finding in found]
    assert ["broken"] * 3 + ["ok"] == [finding.verdict for finding in found]
    for finding, part in zip(
        found, ("none", "nor-this", "Sampler 'foo' is not known", "round-or-angular"), strict=True
    ):
        assert part in finding.says


@pytest.mark.parametrize(
    "sampler", ["euler_ancestral", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"]
)
def test_sampler_by_another_name(root: Root, sampler: str) -> None:
    """A sampler's name in another program, or its class in diffusers, is no fault."""
    (root.inbox / "a").mkdir()

    (found,) = inbox_folders(root, Settings(folders={"a": FolderTable(sampler=sampler)}))

    assert "ok" == found.verdict
