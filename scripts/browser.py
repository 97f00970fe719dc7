"""Shows a page in a headless Chromium: its picture, its DOM after the scripts ran. No network is reachable.

Debian: apt-get install chromium-headless-shell. What it needs of a home goes into a folder that is deleted.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

NAMES: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
TIMEOUT_S: Final = 120.0
# The page is ours, so the sandbox, which root and many containers cannot have, is not needed. Every name and
# address but the page's own file leads to a port that nobody listens on.
_FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1",
    "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9",
)  # fmt: skip


def find_browser() -> str | None:
    """The path of the first that is installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def show(browser: str, page: Path, picture: Path, *, width: int, height: int, dark: bool = False) -> str:
    """Write a PNG of the page's upper `height` px; return the document as it stands after its scripts ran."""
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    size = f"--window-size={width},{height}"
    return _run(browser, page, ("--dump-dom", f"--screenshot={picture}", size, scheme))


def print_pdf(browser: str, page: Path, document: Path) -> None:
    """What would come out of a printer."""
    _run(browser, page, (f"--print-to-pdf={document}", "--no-pdf-header-footer"))


def _run(browser: str, page: Path, flags: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory(prefix="browser-") as home:
        done = subprocess.run(
            [browser, *_FLAGS, f"--user-data-dir={home}", *flags, page.resolve().as_uri()],
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
    return done.stdout.decode()
