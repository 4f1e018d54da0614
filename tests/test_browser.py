"""The chat page in a browser: what people see when they ask, film, edit, stop, and send what is broken.

python -m pytest tests/test_browser.py     # wants playwright and a chromium; each test leaves a picture of the page
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.demo.serve import running
from mmcore.document import Document, Image, Text, Video
from mmcore.generate import Settings
from mmcore.model import MMCoreModel
from mmcore.pipeline import Pipeline
from mmcore.replies import Request, Update
from mmcore.tokenizers.media import read_clip
from mmcore.tokenizers.text import TextTokenizer
from tests.conftest import lively, noise_clip

CHROMIUM = shutil.which("chromium")
for missing in [name for name in ("gradio", "playwright", "axe_playwright_python") if find_spec(name) is None]:
    pytest.skip(f"{missing} is not installed: pip install -e .[dev]", allow_module_level=True)
if CHROMIUM is None:
    pytest.skip("there is no chromium: apt-get install chromium", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import Browser, Page, TimeoutError, expect, sync_playwright  # noqa: E402

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
SIZE, FRAMES, SECONDS = 32, 4, 60_000
"""Sides of a medium in pixels; frames of a clip; milliseconds to wait for what a slow machine does."""


@pytest.fixture(scope="module")
def model(tokenizer: TextTokenizer) -> Pipeline:
    config = MMCoreConfig(
        vocab_size=320, patch=(2, 8, 8), height=SIZE, width_px=SIZE, frames=FRAMES, **PRESETS["debug"]
    )
    return Pipeline(lively(MMCoreModel(config)), tokenizer)


@pytest.fixture(scope="module")
def address(model: Pipeline) -> Iterator[str]:
    start = Document((Video(noise_clip(7, FRAMES, SIZE)), Text("make it blue")))
    example = Document((Video(noise_clip(8, FRAMES, SIZE), learn=True), Text("a red ball")))
    with running(model, [start, example]) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    page = opened(browser, address)
    yield page
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    page.context.close()


def opened(browser: Browser, address: str, **options: object) -> Page:
    """A new session, with errors of the page and requests that leave the machine as failures."""
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(SECONDS)
    page.on("pageerror", lambda error: pytest.fail(f"the page broke: {error}"))

    def local(route: object) -> None:
        url = route.request.url  # type: ignore[attr-defined]
        if not url.startswith((address, "data:", "blob:")):
            pytest.fail(f"the page asks for {url}")
        route.continue_()  # type: ignore[attr-defined]

    page.route("**/*", local)
    page.goto(address)
    page.wait_for_selector(".start")
    return page


def choose(page: Page, kind: str, steps: int = 4) -> None:
    """Set the kind of reply and the steps."""
    page.get_by_role("button", name="Settings").click()
    page.get_by_label(kind, exact=True).check()
    page.get_by_label("number input for Steps").fill(str(steps))
    page.get_by_label("number input for Steps").blur()


def send(page: Page, words: str) -> None:
    page.locator("#box textarea").fill(words)
    page.keyboard.press("Enter")


def finished(page: Page, replies: int = 1) -> None:
    """Wait until so many replies are there and the last is whole."""
    page.wait_for_function(
        "n => document.querySelectorAll('.talk .model').length == n && document.querySelector('.actions')", arg=replies
    )


def attach(page: Page, path: Path) -> None:
    page.locator("#box input[type=file]").set_input_files(path)
    page.wait_for_selector("#box .thumbnail-item, #box [class*=thumbnail]")


def playing(page: Page, where: str, count: int = 1) -> None:
    """Wait until so many clips play, and look at what they show."""
    page.wait_for_function(
        "([where, count]) => { const all = [...document.querySelectorAll(where + ' video')];"
        " return all.length == count && all.every(v => v.readyState >= 2 && !v.paused && v.currentTime > 0) }",
        arg=[where, count],
    )
    shown = page.evaluate(
        """where => [...document.querySelectorAll(where + " video")].map(video => {
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
            canvas.getContext("2d").drawImage(video, 0, 0);
            return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
        })""",
        where,
    )
    for pixels in shown:
        assert len(pixels) == SIZE * SIZE * 4
        assert np.std(np.reshape(pixels, (-1, 4))[:, :3]) > 5, "a blank frame"


def download(page: Page, where: str, folder: Path, clicks: int = 3) -> Path:
    """Click on the link until a download begins: a busy Chromium lets a click on one go by now and then."""
    link = page.locator(where).get_by_role("link", name="Download")
    try:
        with page.expect_download(timeout=SECONDS / 4) as started:
            link.click()
    except TimeoutError:
        if clicks == 1:
            raise
        return download(page, where, folder, clicks - 1)
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def test_upload_a_clip_and_ask(page: Page, model: Pipeline, tmp_path: Path) -> None:
    path = Video(noise_clip(0, FRAMES, SIZE)).save(tmp_path / "clip.mp4")
    choose(page, "words")
    attach(page, path)
    send(page, "what is this?")
    finished(page)
    playing(page, ".you")
    asked = Document((Video.open(path), Text("what is this?")))
    words = model.reply([Request(asked, "text")], Settings(temperature=0))[0].text
    assert words and page.locator(".model p").inner_text() == words


def test_make_a_clip(page: Page, tmp_path: Path) -> None:
    choose(page, "clip")
    page.evaluate(
        """window.told = []; new MutationObserver(() => {
            const bar = document.querySelector("progress");
            if (bar && told.at(-1) != bar.value) told.push(bar.value);
        }).observe(document.querySelector("#log"), {subtree: true, childList: true, attributes: true})"""
    )
    send(page, "a red ball")
    finished(page)
    playing(page, ".model")
    told = page.evaluate("told")
    assert told and told == sorted(set(told)) and told[-1] <= 4
    facts = page.locator(".model figcaption").inner_text()
    assert re.match(r"Clip 1 · 4 frames · seed \d+", facts)
    path = download(page, ".model", tmp_path)
    assert path.name == "clip-1.mp4" and read_clip(path).frames.shape == (FRAMES, SIZE, SIZE, 3)
    seed = re.findall(r"seed (\d+)", facts)[0]
    assert page.get_by_label("Seed", exact=True).input_value() == seed, "the seed can be used again"


def test_edit_the_first_clip_two_turns_later(page: Page) -> None:
    choose(page, "clip")
    page.locator(".start").first.click()
    finished(page, 1)
    send(page, "a blue cube")
    finished(page, 2)
    page.locator(".you figure").get_by_role("button", name="Edit this").click()
    expect(page.locator(".subject")).to_contain_text("Your next message is about this: Clip 1")
    send(page, "make it green")
    finished(page, 3)
    expect(page.locator(".subject")).to_have_count(0)
    playing(page, ".model:last-child .pair", 2)
    shown = page.locator(".you:nth-last-child(2) figcaption").inner_text()
    assert shown.startswith("Clip 4 · 4 frames")


def test_a_start_shows_an_example_and_sends_the_words_alone(page: Page) -> None:
    choose(page, "clip")
    start = page.locator(".start").nth(1)
    expect(start.locator("video")).to_have_count(1)
    start.click()
    finished(page, 1)
    expect(page.locator(".you")).to_have_text(re.compile("a red ball"))
    expect(page.locator(".you figure")).to_have_count(0)


def test_stop_half_way(page: Page, model: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is at its second step for ever, so that nothing but Stop ends it."""
    stream, pace = model.stream, Event()

    def endless(requests: Sequence[Request], settings: Settings | None = None) -> Iterator[Update]:
        for update in stream(requests, settings):
            yield update
            while update.step == 2:
                pace.wait(0.1)
                yield update

    monkeypatch.setattr(model, "stream", endless)
    choose(page, "clip")
    send(page, "a red ball")
    page.wait_for_selector("progress")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".note")).to_have_text("Stopped.")
    assert page.locator(".model video, progress").count() == 0
    page.get_by_role("button", name="Change message").click()
    expect(page.locator("#box textarea")).to_have_value("a red ball")
    assert page.locator(".talk article").count() == 0


def test_two_sessions_at_once(page: Page, browser: Browser, address: str) -> None:
    other = opened(browser, address)
    for one in (page, other):
        choose(one, "picture")
    send(page, "a red ball")
    send(other, "a blue cube")
    for one, own, foreign in ((page, "a red ball", "a blue cube"), (other, "a blue cube", "a red ball")):
        finished(one)
        assert one.locator(".you").inner_text() == own and foreign not in one.content()
    sources = [one.locator(".model img.medium").get_attribute("src") for one in (page, other)]
    assert all(sources) and sources[0] != sources[1]
    for one in (page, other):
        one.wait_for_function("document.querySelector('.model img.medium').naturalWidth == 32")
    other.context.close()
    page.wait_for_function(f"fetch('{sources[1]}').then(answer => !answer.ok)")
    assert page.evaluate(f"fetch('{sources[0]}').then(answer => answer.ok)")


def test_a_corrupt_upload(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"words " * 100)
    attach(page, path)
    send(page, "what is this?")
    expect(page.locator(".note")).to_contain_text("broken.mp4: not a picture or a clip that can be read, or broken")
    assert str(tmp_path) not in page.content()
    choose(page, "words")
    send(page, "a red ball")
    finished(page, 2)


def test_save_and_open(page: Page, tmp_path: Path) -> None:
    choose(page, "picture")
    send(page, "a red ball")
    finished(page)
    with page.expect_download() as started:
        page.get_by_role("button", name="Save").click()
    path = tmp_path / "conversation.zip"
    started.value.save_as(path)
    shutil.unpack_archive(path, tmp_path / "talk")
    talk = Document.load(tmp_path / "talk")
    assert talk.segments[0] == Text("a red ball") and [type(m) for m in talk.media] == [Image]
    page.reload()
    page.wait_for_selector(".start")
    assert page.locator(".talk article").count() == 0, "a reload begins anew"
    page.locator("#tools input[type=file]").set_input_files(path)
    page.wait_for_selector(".model img.medium")
    assert page.locator(".you").inner_text() == "a red ball"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_no_fault_for_people_who_use_it_otherwise(
    scheme: str, width: int, browser: Browser, address: str, tmp_path: Path
) -> None:
    page = opened(browser, address, color_scheme=scheme, viewport={"width": width, "height": 800})
    choose(page, "clip")
    page.locator(".start").first.click()
    finished(page)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the screen"
    faults = [
        f"{fault['id']}: {node['html'][:200]}"
        for fault in Axe().run(page).response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
    assert faults == []
    page.context.close()


def test_in_chinese(browser: Browser, address: str, tmp_path: Path) -> None:
    page = opened(browser, address, locale="zh-CN")
    for words in ("这个模型知道什么", "设置", "清空"):
        expect(page.get_by_text(words, exact=True)).to_be_visible()
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    page.context.close()
