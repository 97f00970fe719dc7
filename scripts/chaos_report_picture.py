"""Draws docs/images/chaos-report.png: the top of the report of a real run, as a browser shows it.

`make capture` runs it: a minute of kills over a cluster of its own, then a headless Chromium
(scripts/browser.py). A run that is not valid, or no browser, fails the script: the picture stays as it was.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from browser import NAMES, find_browser, show
from png_pixels import Picture, save_small

ROOT: Final = Path(__file__).resolve().parents[1]
PICTURE: Final = ROOT / "docs" / "images" / "chaos-report.png"
RUN: Final = ("chaos", "live", "--faults", "kill", "--duration", "60", "--min-rate", "1", "--seed", "5")
WIDTH: Final = 1280
MARGIN_PX: Final = 16

# Where the timeline ends: the picture is cut there.
_MEASURE: Final = (
    "<script>document.body.dataset.bottom ="
    " Math.ceil(document.querySelector('#run').getBoundingClientRect().bottom);</script>"
)


def draw(browser: str, page: Path, picture: Path) -> None:
    """The page from its top to the end of its timeline."""
    measured = page.with_name("measured.html")
    measured.write_text(page.read_text().replace("</body>", _MEASURE + "</body>"))
    dom = show(browser, measured, picture, width=WIDTH, height=2_000)
    found = re.search(r'data-bottom="(\d+)"', dom)
    assert found is not None, "the page has a timeline"
    show(browser, page, picture, width=WIDTH, height=int(found[1]) + MARGIN_PX)


def main() -> int:
    """0: the picture is new; 1: it is as it was."""
    browser = find_browser()
    if browser is None:
        print(f"chaos_report_picture: none of {', '.join(NAMES)} is on PATH", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="raftkube-report-") as folder:
        done = subprocess.run([sys.executable, "-m", *RUN, "--out", "out/chaos"], cwd=folder, check=False)
        if done.returncode != 0:
            print(f"chaos_report_picture: the run ended with {done.returncode}", file=sys.stderr)
            return 1
        drawn = Path(folder) / "report.png"
        draw(browser, Path(folder) / "out" / "chaos" / "report.html", drawn)
        save_small(Picture(drawn), PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
