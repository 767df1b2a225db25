"""The gallery as people meet it: opened from a folder, in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import msgspec
import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect, sync_playwright

from fluxdrop.files.layout import Root
from fluxdrop.gallery.data_pages import PAGE_ENTRIES
from fluxdrop.gallery.gallery import Gallery, page_of
from fluxdrop.records.result import EmbeddingFacts, Value
from support.gallery_records import failure, fill, place, result

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURE = "round_ring_01.png"
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.slow,
]

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium."""
    # It keeps crash reports and settings in the home, even those of a profile that is a temporary folder.
    environment = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))}
    environment |= {
        f"XDG_{kind}_HOME": f"{environment['HOME']}/{kind}" for kind in ("CONFIG", "CACHE")
    }
    # Chromium refuses its sandbox to root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=flags, env=dict(environment)
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, root: Root) -> Iterator[Open]:
    """Opens the gallery of `root`, at what stands behind the #; any error of the page fails the test."""
    errors: list[str] = []
    pages = []

    def open_it(
        address: str = "",
        *,
        at: Root = root,
        size: tuple[int, int] = (1280, 860),
        dark: bool = False,
    ) -> Page:
        page = browser.new_page(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            locale="en-GB",
        )
        pages.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(page_of(at).as_uri() + address)
        expect(page.locator("#results:not([aria-busy])")).to_be_attached()
        return page

    yield open_it
    for page in pages:
        page.close()
    assert [] == errors


@pytest.fixture
def studio(root: Root, samples: Path) -> Root:
    """A root with results of both labels and models, and a failure."""
    pictures = sorted(samples.glob("*.png"))
    for number, picture in enumerate(pictures):
        place(
            root,
            result(picture.stem, number, prompt=f"study of {picture.stem}"),
            picture.stem,
            picture,
        )
    reason = failure("letter.txt", 100, message="Size (width) is 99999; must be 8 to 8192.")
    place(root, reason, "letter.txt", pictures[0])
    Gallery(root).rebuild()
    return root


def cards(page: Page) -> Locator:
    """The results shown."""
    return page.locator(".card")


def pictures_shown(page: Page) -> list[int]:
    """The width of each picture that is in view, in pixels; 0 for one that could not be read."""
    page.wait_for_function("[...document.images].slice(0, 4).every((image) => image.complete)")
    widths: list[int] = page.evaluate("[...document.images].slice(0, 4).map((i) => i.naturalWidth)")
    return widths


@pytest.mark.parametrize(
    ("name", "address", "size", "dark"),
    [
        ("light", "", (1280, 860), False),
        ("dark", "", (1280, 860), True),
        ("phone", "", (390, 844), False),
        ("failures", "#state=failed", (1280, 600), False),
    ],
)
def test_looks(
    studio: Root,
    open_page: Open,
    tmp_path: Path,
    name: str,
    address: str,
    size: tuple[int, int],
    dark: bool,
) -> None:
    """Light, dark, on a phone and with failures: everything is within the width of the window, in
    the wished colours, and a screenshot is left to be looked at."""
    page = open_page(address, size=size, dark=dark)
    page.screenshot(path=tmp_path / f"{name}.png")

    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    width = page.evaluate("document.documentElement.scrollWidth")

    assert ("rgb(19, 19, 21)" if dark else "rgb(245, 244, 241)") == ground
    assert size[0] >= width
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_results_and_failures(studio: Root, open_page: Open) -> None:
    """A card has picture, name, prompt, labels and probabilities; a failure its reason and what to
    do about it."""
    page = open_page()
    newest, oldest = cards(page).first, cards(page).last

    expect(cards(page)).to_have_count(13)
    expect(newest).to_contain_text("Failed at generate")
    expect(newest).to_contain_text("Size (width) is 99999; must be 8 to 8192.")
    expect(newest).to_contain_text("Write a prompt into it.")
    expect(oldest).to_contain_text("study of angular_cross_01")
    expect(oldest.locator(".bars li").first).to_contain_text("angular 75.0 %")
    expect(oldest.locator(".bars li").last).to_contain_text("round 25.0 %")
    assert [64, 64, 64, 64] == pictures_shown(page)


def test_filters(studio: Root, open_page: Open) -> None:
    """Label, model, state and text narrow what is shown, alone and together; each choice has its
    count; the address keeps them."""
    page = open_page()
    expect(page.get_by_label("Label")).to_contain_text("round (6)")

    page.get_by_label("Label").select_option("round")
    expect(cards(page)).to_have_count(6)
    page.get_by_label("Model").select_option("shapes of last year")
    expect(cards(page)).to_have_count(2)
    expect(page.get_by_label("Label")).to_contain_text("angular (2)")
    page.get_by_role("searchbox").fill("RING STUDY")
    expect(cards(page)).to_have_count(0)
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(cards(page)).to_have_count(13)
    page.get_by_role("radio", name="Failed").check()
    expect(cards(page)).to_have_count(1)
    page.get_by_role("radio", name="All").check()
    page.get_by_role("searchbox").fill("RING STUDY")
    expect(cards(page)).to_have_count(2)
    page.reload()
    expect(cards(page)).to_have_count(2)
    expect(page.get_by_role("status")).to_have_text("1 to 2 of 2 matching results")


def test_kinds_of_answer(root: Root, samples: Path, open_page: Open) -> None:
    """Found labels have a mark and are filters each; a value is text; an embedding has a link to its file."""
    several = msgspec.structs.replace(
        result("several", 0), kind="multi-label", labels=["angular", "round"]
    )
    nothing: dict[str, Any] = {"probabilities": {}, "top": []}
    value = msgspec.structs.replace(
        result("value", 1),
        kind="regression",
        values=[Value(name="age", value=37.25, unit="years")],
        **nothing,
    )
    vector = msgspec.structs.replace(
        result("vector", 2),
        kind="embedding",
        embedding=EmbeddingFacts(file="outputs/vector.npy", dimension=192),
        **nothing,
    )
    for record in (several, value, vector):
        place(root, record, record.source.file.removesuffix(".txt"), samples / PICTURE)
    Gallery(root).rebuild()
    page = open_page()

    expect(cards(page).filter(has_text="age 37.25 years")).to_have_count(1)
    expect(page.locator(".bars .label")).to_have_text(["✓ angular", "✓ round"])
    cards(page).filter(has_text="192 numbers").get_by_role("button").click()
    expect(page.get_by_role("link", name="Embedding")).to_have_attribute("href", "./vector.npy")
    page.keyboard.press("Escape")
    for label in ("round", "angular"):
        page.get_by_label("Label").select_option(label)
        expect(cards(page)).to_have_count(1)
        expect(page.get_by_label("Label")).to_contain_text("round (1)")


def test_empty(root: Root, open_page: Open, tmp_path: Path) -> None:
    """With no result yet, the page says what to do."""
    Gallery(root).rebuild()

    page = open_page()
    page.screenshot(path=tmp_path / "empty.png")

    expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
    expect(page.get_by_text("Drop a .txt prompt or a picture into inbox/.")).to_be_visible()


def test_keyboard(studio: Root, open_page: Open) -> None:
    """Without a mouse: / searches, Enter opens a result, arrows turn to its neighbours, Escape
    closes and leaves the focus where it was."""
    page = open_page()

    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.get_by_role("button", name="round_ring_02").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="round_ring_02")).to_be_visible()
    page.keyboard.press("ArrowRight")
    details = page.get_by_role("dialog", name="round_ring_01")
    expect(details).to_contain_text("shapes-diffusion, seed 18446744073709551615, 20 steps, DDIM")
    expect(details).to_contain_text("julia, Julia 1.11.2, Flux 0.16.3, on cpu")
    expect(details.get_by_role("link", name="JSON")).to_have_attribute(
        "href", "./round_ring_01.json"
    )
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="round_ring_01")).to_be_focused()


def test_pages(root: Root, samples: Path, open_page: Open) -> None:
    """More results than a page holds are turned through from the newest to the oldest."""
    fill(root, PAGE_ENTRIES + 5, samples / PICTURE)

    page = open_page()
    expect(cards(page)).to_have_count(PAGE_ENTRIES)
    expect(cards(page).first).to_contain_text(f"study {PAGE_ENTRIES + 4:05}")
    page.get_by_role("button", name="Older", exact=True).click()

    expect(cards(page)).to_have_count(5)
    expect(cards(page).last).to_contain_text("study 00000")
    expect(page.get_by_role("navigation")).to_contain_text("Page 2 of 2")


def test_cost_of_many(root: Root, samples: Path, open_page: Open) -> None:
    """Opening 20,000 results reads as many files, as many bytes and makes as many elements as
    opening 480 (so it takes no longer); only a filter reads them all, and finds the one."""
    costs = []
    for count in (2 * PAGE_ENTRIES, 20_160):
        filled = Root(root.path / str(count))
        filled.create()
        fill(filled, count, samples / PICTURE)
        page = open_page(at=filled)
        read = scripts_read_by(page)
        page.reload()
        expect(cards(page)).to_have_count(PAGE_ENTRIES)
        size = sum(path.stat().st_size for path in read)
        costs.append((len(read), size, page.evaluate("document.querySelectorAll('*').length")))

    (few_files, few_bytes, few_nodes), (files, size, nodes) = costs
    page.get_by_role("searchbox").fill("study 00007")

    assert 2 == few_files == files
    assert few_nodes == nodes < 30 * PAGE_ENTRIES
    assert size < 1.1 * few_bytes < 250_000
    expect(page.get_by_role("status")).to_have_text("1 to 1 of 1 matching result")
    assert 1 + 20_160 // PAGE_ENTRIES == len(read)


def scripts_read_by(page: Page) -> list[Path]:
    """The scripts that *page* reads from now on, as it reads them."""
    scripts: list[Path] = []

    def note(request: Request) -> None:
        path = Path(unquote(urlparse(request.url).path))
        if path.suffix == ".js":
            scripts.append(path)

    page.on("request", note)
    return scripts


def test_hostile_names(root: Root, samples: Path, open_page: Open) -> None:
    """Names and prompts are shown letter by letter, their pictures are found, and nothing of them
    runs."""
    attack = '</script><script>window.hit=1</script><img src=x onerror="window.hit=2">\u2028"\'`${window.hit=3}'
    name = '<img src=x onerror=hit=4> #1?50%&"'
    reason = failure("javascript:hit=5.txt", 2, message=attack)
    told = [
        place(root, result(name, 1, prompt=attack), name, samples / PICTURE),
        place(root, reason, "javascript:hit=5.txt", samples / PICTURE),
    ]
    gallery = Gallery(root)
    gallery.catch_up((record.job_id, path) for record, path in told)

    page = open_page()
    shown = cards(page).nth(1)
    cards(page).first.click()
    link = page.get_by_role("link", name="The file, untouched")

    assert name == shown.get_by_role("button").text_content()
    assert attack == shown.locator(".prompt").text_content()
    assert attack == page.locator("dialog .message").text_content()
    assert "./failed/javascript%3Ahit%3D5.txt" == link.get_attribute("href")
    assert 64 == shown.locator("img").evaluate("(image) => image.naturalWidth")
    assert None is page.evaluate("window.hit ?? null")


def test_policy(studio: Root, browser: Browser) -> None:
    """Even markup that got into the page could run no script, load none, style nothing and call
    nobody: the policy refuses all but the page's own."""
    (studio.outputs / "planted.js").write_text("window.hit = 1")
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(page_of(studio).as_uri())
    page.evaluate(
        """document.body.insertAdjacentHTML("beforeend", `
            <img src="planted.png" onerror="window.hit = 1">
            <img src="https://example.invalid/seen.png">
            <iframe src="planted.html"></iframe>
            <iframe srcdoc="<script src='planted.js'></scr` + `ipt>"></iframe>
            <style>body { display: none }</style>`)"""
    )
    page.wait_for_timeout(300)
    hit = page.evaluate("window.hit ?? null")
    is_visible = page.locator("body").is_visible()
    page.close()

    assert None is hit
    assert is_visible
    assert {"img-src", "script-src", "style-src", "frame-src"} <= {
        directive
        for directive in ("img-src", "script-src", "style-src", "frame-src")
        if any(directive in text for text in refused)
    }


def test_news(studio: Root, samples: Path, browser: Browser) -> None:
    """A page that lies open shows what came meanwhile, also after all was made anew; further down,
    or filtered, it offers it."""
    page = browser.new_page()
    page.clock.install()
    page.goto(page_of(studio).as_uri())
    expect(cards(page)).to_have_count(13)

    place(studio, result("fresh", 200), "fresh", samples / PICTURE)
    Gallery(studio).rebuild()
    page.clock.fast_forward(11_000)
    expect(cards(page)).to_have_count(14)
    page.get_by_role("radio", name="Done").check()
    expect(cards(page)).to_have_count(13)
    gallery = Gallery(studio)
    gallery.catch_up([])
    gallery.add([place(studio, result("later", 201), "later", samples / PICTURE)])
    page.clock.fast_forward(11_000)
    page.get_by_role("button", name="Show 1 new result").click()
    expect(cards(page)).to_have_count(14)
    page.close()
