"""Pictures of the page: as it opens, which the README shows, and after a clip has been filmed and edited.

python -m mmcore.demo.portrait demo/pictures          # needs playwright, and chromium
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

WIDTH, HEIGHT = 900, 1000
"""Of the browser's window."""

WHOLE = "n => document.querySelectorAll('.talk .model').length == n && document.querySelector('.actions')"
"""So many replies are there, and the last is whole."""

SHOWN = "() => [...document.querySelectorAll('.talk video')].every(video => video.readyState >= 2)"


def main(folder: Path) -> None:
    """Write start.png and page.png."""
    command = [sys.executable, "-u", "-m", "mmcore", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            assert server.stdout is not None
            address = next(word for word in server.stdout.readline().split() if word.startswith("http"))
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(address)
            page.wait_for_selector(".start")
            page.screenshot(path=folder / "start.png")
            talk(page)
            page.screenshot(path=folder / "page.png", full_page=True)
            browser.close()
        finally:
            server.terminate()


def talk(page: Page) -> None:
    """Take the first start, then choose what came, and ask for an edit of it."""
    page.locator(".start").first.click()
    page.wait_for_function(WHOLE, arg=1)
    page.get_by_role("button", name="Edit this").click()
    page.wait_for_selector(".subject")
    page.locator("#box textarea").fill("make the ball blue")
    page.keyboard.press("Enter")
    page.wait_for_function(WHOLE, arg=2)
    page.wait_for_function(SHOWN)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
