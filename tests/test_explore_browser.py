"""The plane of clips in a headless Chromium: pointer, keyboard, search, legend, lasso, both schemes, paper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from echo_embeddings.core.settings import Table, Tables
from echo_embeddings.qc.page import make_model_page
from echo_embeddings.qc.report import Options
from testing import planted
from testing.browser import CHROMIUM, opened
from testing.conversion import write_pattern

pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"
)

CLIPS = 480  # of twelve patients
GRADES = ("none", "mild", "severe")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, planted.Planted]:
    """A page with a table, planted defects, and the video of the first outlier."""
    top = tmp_path_factory.mktemp("explored")
    found = planted.write(top, CLIPS, 32, pairs=6)
    outlier = found.truth.outliers[0]
    keys = [key for _, key in planted.keys_of(CLIPS, 10)]
    write_pattern(found.folders[outlier[:3]].tree / outlier, 43 + keys.index(outlier) % 137)
    table = top / "grades.csv"
    people = sorted({key.split("/")[0][1:] for key in keys})
    lines = [f"{person},{GRADES[i % 3]},{40.5 + i}" for i, person in enumerate(people)]
    table.write_text("subject_id,grade,age\n" + "\n".join(lines) + "\n")
    tables = Tables(others=(Table(str(table), "patient", "subject_id", name="tables.0"),))
    page = top / "qc/vitl.html"
    make_model_page("vitl", found.merged, found.folders, page, Options(tables=tables))
    return page, found


@pytest.fixture
def page(browser: Any, made: tuple[Path, planted.Planted]) -> Iterator[Any]:
    options = {"viewport": {"width": 1280, "height": 1200}, "permissions": ["clipboard-read", "clipboard-write"]}
    with opened(browser, made[0], **options) as page:
        part(page, "canvas").scroll_into_view_if_needed()
        yield page


def part(page: Any, name: str) -> Any:
    return page.locator(f"#explorer [data-part={name}]")


def place(page: Any, i: int) -> tuple[float, float]:
    """Where clip number `i` is in the window."""
    x, y = page.evaluate("i => window.explored.plane.place(i)", i)
    box = part(page, "canvas").bounding_box()
    return box["x"] + x, box["y"] + y


def alone(page: Any, made: tuple[Path, planted.Planted]) -> int:
    """A clip in the middle of the plane with no other one near it, and with a direction."""
    script = """zeros => {
      const {plane, names} = window.explored;
      const places = names.map((_, i) => plane.place(i));
      const gap = ([x, y], i) => Math.min(...places.map(([a, b], j) => i === j ? 1e9 : Math.hypot(a - x, b - y)));
      const inner = ([x, y]) => x > 60 && y > 60 && x < plane.width - 60 && y < plane.height - 60;
      const gaps = places.map((place, i) => inner(place) && !zeros.includes(names[i]) ? gap(place, i) : 0);
      return gaps.indexOf(Math.max(...gaps));
    }"""
    return page.evaluate(script, made[1].truth.zero)


def pixels(page: Any) -> int:
    """How many pixels of the canvas are not those of the paper."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    image = cv2.imdecode(np.frombuffer(part(page, "canvas").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return int((image < 250).any(axis=2).sum())


def name_of(page: Any, i: int) -> str:
    return page.evaluate("i => window.explored.names[i]", i)


def test_hover_names_the_clip_and_a_click_shows_its_neighbours(page: Any, made: tuple[Path, planted.Planted]) -> None:
    clip = alone(page, made)
    name = name_of(page, clip)
    page.mouse.move(*place(page, clip))
    assert name in part(page, "tip").text_content()
    page.mouse.click(*place(page, clip))
    assert part(page, "name").text_content() == name
    listed = part(page, "neighbours").locator("li").all_text_contents()
    assert len(listed) == 10
    assert all("cosine" in entry and name not in entry for entry in listed)
    part(page, "neighbours").locator("button").first.click()
    assert part(page, "name").text_content() == listed[0].split("cosine")[0]
    part(page, "close").click()
    assert not part(page, "clip").is_visible()


def test_every_finite_clip_is_there_and_a_neighbour_of_a_duplicate_is_its_equal(
    page: Any, made: tuple[Path, planted.Planted]
) -> None:
    names = page.evaluate("window.explored.names")
    truth = made[1].truth
    assert len(names) == CLIPS - 2
    one, other = truth.duplicates[0]
    part(page, "search").fill(one)
    part(page, "found").locator("button").click()
    first = part(page, "neighbours").locator("li").first.text_content()
    assert first.startswith(other)
    assert "cosine 1.000" in first
    facts = part(page, "facts").text_content()
    assert "findingexact duplicate" in facts
    assert "grade" in facts


def test_the_strip_of_an_outlier_is_shown(page: Any, made: tuple[Path, planted.Planted]) -> None:
    part(page, "search").fill(made[1].truth.outliers[0])
    part(page, "found").locator("button").click()
    strip = part(page, "strip").locator("img")
    assert strip.evaluate("image => image.decode().then(() => image.naturalWidth)") == 454


def test_search_finds_the_clips_of_a_patient_and_lists_their_keys(page: Any) -> None:
    part(page, "search").fill("patient 10000000")
    assert "40 clips found" in part(page, "status").text_content()
    part(page, "list-found").click()
    keys = part(page, "keys").input_value().split("\n")
    assert len(keys) == 40
    assert all(key.startswith("p10000000/") for key in keys)
    part(page, "copy").click()
    page.wait_for_function("document.querySelector('[data-part=status]').textContent.includes('copied')")
    assert page.evaluate("navigator.clipboard.readText()").split() == keys


def test_a_legend_entry_hides_its_group(page: Any) -> None:
    part(page, "colouring").select_option(label="grade")
    entries = part(page, "legend").locator("button")
    said = entries.all_text_contents()
    assert sorted(text.rstrip("0123456789") for text in said) == sorted(GRADES)
    before = pixels(page)
    entries.first.click()
    assert entries.first.get_attribute("aria-pressed") == "false"
    hidden = pixels(page)
    assert 0 < hidden < 0.85 * before
    entries.first.click()
    assert abs(pixels(page) - before) < 0.02 * before


def test_numbers_are_coloured_in_parts_of_their_range(page: Any) -> None:
    part(page, "colouring").select_option(label="age")
    labels = part(page, "legend").locator("span:first-of-type").all_text_contents()
    assert 3 <= len(labels) <= 5
    assert labels[0].startswith("40.5 to")
    assert labels[-1].endswith("to 51.5")


def test_a_lasso_writes_the_keys_of_what_it_holds(page: Any, made: tuple[Path, planted.Planted]) -> None:
    clip = alone(page, made)
    x, y = place(page, clip)
    part(page, "lasso").click()
    page.mouse.move(x - 9, y - 9)
    page.mouse.down()
    for corner in ((x + 9, y - 9), (x + 9, y + 9), (x - 9, y + 9)):
        page.mouse.move(*corner, steps=3)
    page.mouse.up()
    assert part(page, "keys").input_value() == name_of(page, clip)
    box = part(page, "canvas").bounding_box()
    page.mouse.move(box["x"] + 12, box["y"] + 12)
    page.mouse.down()
    for right, down in ((1, 0), (1, 1), (0, 1)):
        page.mouse.move(
            box["x"] + 12 + right * (box["width"] - 24), box["y"] + 12 + down * (box["height"] - 24), steps=4
        )
    page.mouse.up()
    assert len(part(page, "keys").input_value().split("\n")) > 0.7 * CLIPS


def test_all_of_it_works_by_keyboard(page: Any) -> None:
    part(page, "reset").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === window.explored.plane.canvas")
    page.keyboard.press("ArrowRight")
    first = part(page, "status").text_content()
    page.keyboard.press("ArrowRight")
    second = part(page, "status").text_content()
    assert first != second
    assert "patient" in second
    page.keyboard.press("Enter")
    assert part(page, "name").text_content() == second.split(",")[0]
    span = page.evaluate("window.explored.plane.span[0]")
    page.keyboard.press("+")
    assert page.evaluate("window.explored.plane.span[0]") < span
    page.keyboard.press("0")
    assert page.evaluate("window.explored.plane.span[0]") == span
    page.keyboard.press("Escape")
    assert not part(page, "clip").is_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert part(page, "legend").locator("[aria-pressed=false]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_and_colours_are_those_of_the_scheme(
    browser: Any, made: tuple[Path, planted.Planted], scheme: str, width: int
) -> None:
    with opened(browser, made[0], color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        part(page, "search").fill("patient 1")
        part(page, "list-found").click()
        page.evaluate("window.explored.choose(3)")
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        colour = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--point-0')")
        assert colour == {"light": "#2D4BC3", "dark": "#8787F0"}[scheme]


def test_colours_follow_when_the_scheme_changes(page: Any) -> None:
    for scheme, colour in (("dark", "#8787F0"), ("light", "#2D4BC3")):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"window.explored.plane.styles[0].colour === '{colour}'")


def test_on_paper_and_without_javascript_one_still_picture_stands_there(
    page: Any, browser: Any, made: tuple[Path, planted.Planted]
) -> None:
    still = "#explore-still img"
    assert not page.locator(still).is_visible()
    page.emulate_media(media="print")
    assert page.locator(still).is_visible()
    assert not part(page, "canvas").is_visible()
    with opened(browser, made[0], java_script_enabled=False) as plain:
        assert plain.locator(still).is_visible()
        assert not part(plain, "canvas").is_visible()
