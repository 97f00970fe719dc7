"""The report in a real browser: the timeline is drawn where it must be, with ink, and the verdict is there.

A script added to a copy of the page measures what the browser laid out; a picture shows what it painted.
"""

from __future__ import annotations

import html
import importlib.util
import json
import re
import runpy
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from report_histories import invalid, live_faults, make_history, simulated_history, term, valid

from chaos.checkers.history import History
from chaos.checkers.verdict import Verdict
from chaos.report import write_report

ROOT: Final = Path(__file__).parents[2]
Json = dict[str, Any]
Box = dict[str, float]
Pixel = tuple[int, int, int]

WIDTH: Final = 1280
OK, UNKNOWN, LED, HIT = (58, 124, 194), (224, 138, 0), (47, 158, 110), (201, 54, 75)
VERDICTS: Final = {"valid": (31, 127, 77), "invalid": (194, 31, 54), "unknown": (154, 103, 0)}

_MEASURE: Final = """<script>
const all = (query) => [...document.querySelectorAll(query)].map((part) => {
  const {x, y, width, height} = part.getBoundingClientRect();
  return {x, y, width, height, name: part.getAttribute("class"), text: part.textContent};
});
const told = document.createElement("pre");
told.id = "measured";
told.textContent = JSON.stringify({
  verdict: all("#verdict"), headline: all(".headline"), run: all("#run svg"), bands: all("#run .band"),
  lanes: all("#run [data-part=lanes] path"), labels: all("#run [data-part=lanes] text"),
  led: all("#run rect.led"), hits: all("#run rect.hit"), dots: all("#run .dot"), writes: all("#run .writes"),
  numbers: all("#run [data-part=numbers] rect"), cursors: all("#run .cursor"), main: all("main"),
  broken: all("#violation .call.broken"), neighbours: all("#violation .neighbour"),
  invariants: all(".invariants li"), closeups: all("details[id] svg"),
  fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
  wide: document.documentElement.scrollWidth,
});
document.body.append(told);
</script>"""


def _script(name: str) -> types.ModuleType:
    """scripts/ is no package."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BROWSER: Final = _script("browser")
PNG: Final = _script("png_pixels")
FOUND: Final = BROWSER.find_browser()

pytestmark = pytest.mark.skipif(
    FOUND is None, reason="no Chromium on PATH (Debian: apt-get install chromium-headless-shell)"
)


def _near(found: Pixel, wanted: Pixel) -> bool:
    return max(abs(one - other) for one, other in zip(found, wanted, strict=True)) <= 40


@dataclass
class Shown:
    """What the browser laid out and what it painted."""

    measured: dict[str, Any]
    picture: Any  # scripts/png_pixels.py: Picture
    folder: Path

    def lane_ink(self, lane: Box, colour: Pixel) -> int:
        """A lane is a stroke: its box has no height. Two lines of pixels within it."""
        return self.ink(lane | {"y": lane["y"] - 1, "height": 2}, colour)

    def ink(self, box: Box, colour: Pixel) -> int:
        """How many pixels of this colour lie in the box; edges are blended with what lies around them."""
        painted = self.picture.colours(box["x"], box["y"], box["width"], box["height"])
        return sum(count for found, count in painted.items() if _near(found, colour))


def show(folder: Path, history: History, verdict: Verdict, height: int, dark: bool = False) -> Shown:
    write_report(folder, history, verdict, history.faults, "python -m chaos live --seed 1 --out x")
    page, picture = folder / "report.html", folder / "picture.png"
    copy = folder / "measured.html"
    copy.write_text(page.read_text().replace("</body>", _MEASURE + "</body>"))
    dom = BROWSER.show(FOUND, copy, picture, width=WIDTH, height=height, dark=dark)
    told = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL)
    assert told is not None, "the page's script did not run to its end"
    return Shown(json.loads(html.unescape(told[1])), PNG.Picture(picture), folder)


def live_history(clients: int, operations: int, kills: int) -> History:
    faults = live_faults(kills, 60)
    history = make_history(clients, operations, faults)
    history.observations = [term(50, 1, "store-1")]
    history.observations += [
        term(fault["start_ns"] / 1e6 + 200, number, f"store-{1 + number % 3}")
        for number, fault in enumerate(faults, 2)
    ]
    return history


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Sixteen clients, 10,000 operations, five faults of which one had no effect."""
    history = live_history(16, 10_000, 5)
    return show(tmp_path_factory.mktemp("ordinary"), history, valid(history), height=1_150)


@pytest.mark.parametrize("word", ["valid", "invalid", "unknown"])
def test_the_verdict_is_there(word: str, tmp_path: Path) -> None:
    history = live_history(3, 300, 1)
    verdict = invalid(history) if word == "invalid" else valid(history)
    if word == "unknown":
        verdict.unknown_because.append("the history has no barrier write")
    shown = show(tmp_path, history, verdict, height=400)
    (badge,) = shown.measured["verdict"]
    assert badge["text"] == word
    assert shown.ink(badge, VERDICTS[word]) > badge["width"] * badge["height"] / 2
    assert shown.measured["headline"][0]["width"] > 200


def test_a_lane_for_each_client_is_drawn(ordinary: Shown) -> None:
    lanes = [lane for lane in ordinary.measured["lanes"] if lane["name"] == "bar ok"]
    (picture,) = ordinary.measured["run"]
    assert [label["text"] for label in ordinary.measured["labels"]] == [str(n) for n in range(1, 17)]
    assert len(lanes) == 16
    assert len({round(lane["y"]) for lane in lanes}) == 16
    for lane in lanes:
        assert lane["width"] > picture["width"] * 0.8
        assert ordinary.lane_ink(lane, OK) > lane["width"] * 0.6  # idle for half of the time


def test_what_was_unknown_is_seen_in_the_lanes(ordinary: Shown) -> None:
    doubtful = [lane for lane in ordinary.measured["lanes"] if lane["name"] == "bar unknown"]
    assert doubtful
    assert sum(ordinary.lane_ink(lane, UNKNOWN) for lane in doubtful) > 20


def test_each_fault_is_a_band_behind_everything(ordinary: Shown) -> None:
    bands, (picture,) = ordinary.measured["bands"], ordinary.measured["run"]
    assert len(bands) == 5
    scale = picture["width"] / 1200
    for number, band in enumerate(bands, 1):
        # The axis begins at 150 of 1200; faults start at each tenth second of sixty and last for four.
        start = picture["x"] + (150 + 1028 * number * 10 / 60) * scale
        assert band["x"] == pytest.approx(start, abs=4)
        assert band["width"] == pytest.approx(1028 * 4 / 60 * scale, abs=3)
        assert band["height"] > picture["height"] * 0.8
        between = {"x": band["x"] + 3, "y": band["y"] + 2, "width": band["width"] - 6, "height": 8}
        ((red, _, blue),) = ordinary.picture.colours(*between.values())
        assert 200 < min(red, blue) < 250
        assert (red - blue > 10) == (band["name"] == "band")
    assert [band["name"] for band in bands].count("band idle") == 1
    flags = [each["name"] for each in ordinary.measured["numbers"]]
    assert flags == ["flag", "flag", "flag idle", "flag", "flag"]


def test_leaders_and_what_was_hit_stand_on_their_rows(ordinary: Shown) -> None:
    led, hits = ordinary.measured["led"], ordinary.measured["hits"]
    assert len(led) == 6
    assert len({round(box["y"]) for box in led}) == 3
    assert all(ordinary.ink(box, LED) > 100 for box in led)
    # The one-way cut of store-2 -> store-3 is on both their rows.
    assert len(hits) == 6
    assert all(ordinary.ink(box, HIT) > 100 for box in hits)


def test_latency_and_rate_have_ink(ordinary: Shown) -> None:
    (writes,) = ordinary.measured["writes"]
    assert ordinary.ink(writes, OK) > writes["width"] * writes["height"] / 3
    dots = {dot["name"]: dot for dot in ordinary.measured["dots"]}
    assert {"dot ok weight-0", "dot unknown weight-0"} <= set(dots)
    cloud = dots["dot ok weight-0"]
    assert cloud["width"] > 900
    painted = ordinary.picture.colours(cloud["x"], cloud["y"], cloud["width"], cloud["height"])
    bluish = sum(count for (red, _, blue), count in painted.items() if blue - red > 40)
    assert bluish > 2_000


def test_nothing_is_fetched_and_nothing_sticks_out(ordinary: Shown) -> None:
    assert ordinary.measured["fetched"] == []
    assert ordinary.measured["wide"] <= WIDTH
    assert len(ordinary.measured["closeups"]) == 5
    assert len(ordinary.measured["cursors"]) == 1


def test_sixty_clients_and_a_hundred_thousand_operations(tmp_path: Path) -> None:
    history = live_history(60, 100_000, 20)
    assert len(history.operations) > 80_000
    shown = show(tmp_path, history, valid(history), height=1_000)
    lanes = [lane for lane in shown.measured["lanes"] if lane["name"] == "bar ok"]
    assert len({round(lane["y"], 1) for lane in lanes}) == 60
    assert all(shown.lane_ink(lane, OK) > lane["width"] for lane in lanes)
    assert shown.measured["run"][0]["height"] < 1_000
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_a_violation_of_a_simulation_is_shown_among_its_neighbours(tmp_path: Path) -> None:
    history = simulated_history()
    shown = show(tmp_path, history, invalid(history), height=1_000)
    (broken,) = shown.measured["broken"]
    assert shown.ink(broken, VERDICTS["invalid"]) > broken["width"] * broken["height"] * 0.8
    assert len(shown.measured["neighbours"]) > 5
    assert "skip-vote" in shown.measured["main"][0]["text"]


def test_an_empty_history_is_a_page_too(tmp_path: Path) -> None:
    verdict = Verdict(unknown_because=["the history has no complete watch"])
    shown = show(tmp_path, History({"format": 1}), verdict, height=600)
    assert shown.measured["verdict"][0]["text"] == "unknown"
    assert len(shown.measured["invariants"]) >= 13


def test_dark_rooms(tmp_path: Path) -> None:
    history = live_history(3, 300, 1)
    shown = show(tmp_path, history, valid(history), height=500, dark=True)
    paper = shown.picture.at(WIDTH - 3, 3)
    assert max(paper) < 60
    assert shown.ink(shown.measured["verdict"][0], VERDICTS["valid"]) > 100


def test_it_prints(tmp_path: Path) -> None:
    history = live_history(16, 5_000, 5)
    write_report(tmp_path, history, valid(history), history.faults, "again")
    BROWSER.print_pdf(FOUND, tmp_path / "report.html", tmp_path / "report.pdf")
    document = (tmp_path / "report.pdf").read_bytes()
    assert document.startswith(b"%PDF-")
    assert 1 <= document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") <= 8


def test_the_picture_of_the_readme_ends_with_the_timeline(
    ordinary: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    drawing = runpy.run_path(str(ROOT / "scripts" / "chaos_report_picture.py"))
    picture = ordinary.folder / "readme.png"
    drawing["draw"](FOUND, ordinary.folder / "report.html", picture)
    # Narrower than the window of the other tests, so the tiles above may be higher.
    drawn = PNG.Picture(picture)
    assert drawn.width == drawing["WIDTH"]
    assert 700 < drawn.height < 1_300
    assert drawn.at(drawing["WIDTH"] - 2, drawn.height - 2) == (255, 255, 255)


def test_the_picture_in_the_readme_is_one_of_a_valid_run() -> None:
    path = ROOT / "docs" / "images" / "chaos-report.png"
    assert path.stat().st_size <= 300_000
    top = PNG.Picture(path).colours(20, 40, 200, 80)
    assert sum(count for colour, count in top.items() if _near(colour, VERDICTS["valid"])) > 1_000


def test_a_smaller_png_shows_the_same(ordinary: Shown) -> None:
    small = ordinary.folder / "small.png"
    PNG.save_small(ordinary.picture, small)
    assert small.stat().st_size < (ordinary.folder / "picture.png").stat().st_size
    again = PNG.Picture(small)
    assert (again.width, again.height) == (ordinary.picture.width, ordinary.picture.height)
    (badge,) = ordinary.measured["verdict"]
    box = (badge["x"], badge["y"], badge["width"], badge["height"])
    painted = again.colours(*box)
    assert painted[VERDICTS["valid"]] >= ordinary.picture.colours(*box)[VERDICTS["valid"]]
    away = [
        sum(abs(one - other) for one, other in zip(again.at(x, y), ordinary.picture.at(x, y), strict=True))
        for x in range(0, again.width, 7)
        for y in range(0, again.height, 7)
    ]
    assert sum(away) / len(away) < 3
