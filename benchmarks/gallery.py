"""The gallery with 100,000 results, opened from a folder in Chromium."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.table import Row, seconds
from fluxdrop.files.folders import Folders
from fluxdrop.gallery.data_pages import Pages
from fluxdrop.gallery.entry import Entry
from fluxdrop.gallery.html_page import write_page

_PICTURE = Path(__file__).parents[1] / "examples" / "round_ring_01.png"
_RESULTS = 100_000
_TIMES = 5


def rows() -> Iterator[Row]:
    """From the address to cards with their pictures in view, and a search through all of them."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = _fill(Path(folder))
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        opened = seconds(lambda: _open(browser, page.as_uri()), _TIMES)
        yield Row("opening a gallery of 100,000", "< 2", opened, "s", opened < 2)
        address = f"{page.as_uri()}#text=study+000007"
        searched = seconds(lambda: _open(browser, address), _TIMES)
        yield Row("opening it with a search", "< 2", searched, "s", searched < 2)
        browser.close()


def _open(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("#results:not([aria-busy]) .card")
    # The page's policy forbids what `wait_for_function` does.
    page.evaluate("document.querySelector('.card img')?.decode()")
    page.close()


def _fill(folder: Path) -> Path:
    folders = Folders(folder, max_open=8)
    pages = Pages(folders)
    entries = [_entry(number) for number in range(_RESULTS)]
    for entry in entries:
        shutil.copyfile(_PICTURE, folder / f"{entry.name}.png")
    pages.commit(pages.extend(pages.begin("studio"), entries))
    write_page(folders, "studio")
    folders.close()
    return folder / "index.html"


def _entry(number: int) -> Entry:
    label, other = ("round", "angular") if number % 2 else ("angular", "round")
    return Entry(
        id=f"20260101T000000-{number:08x}",
        state="done",
        kind="prompt",
        name=f"study {number:06}",
        source=f"study {number:06}.txt",
        finished="2026-01-01T00:00:00.000Z",
        prompt=f"a {label} shape, the {number}th of its kind, on a white background",
        model="round-or-angular",
        engine="julia, Julia 1.11.2, Flux 0.16.3, on cpu",
        top=[(label, 0.9), (other, 0.1)],
        size=(64, 64),
        made=f"shapes-diffusion, seed {number}, 20 steps, DDIM, CFG scale 3",
        milliseconds=1234.5,
    )
