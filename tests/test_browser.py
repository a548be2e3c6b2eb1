"""The demo's pages in a headless Chromium: no error, no request out, pictures load, tables sort, all fits."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from echo_embeddings.qc.index import make_index
from testing import outcomes
from testing.browser import CHROMIUM, opened
from testing.commands import call_command, run_demo
from testing.qc import DIM, FACTS, Collection

pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"
)

WIDTHS = (1440, 390)
EVALUATED = [
    "../evaluate/index.html",
    "../evaluate/lvef/index.html",
    "../evaluate/mitral_regurgitation_severity/index.html",
]
VIEWS = tuple(f"parasternal short axis at the level of the papillary muscles {i}" for i in range(25))


@pytest.fixture(scope="session")
def pages(finished: Path, made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The demo's pages, an index that compares its model with itself, and its vectors against an older script's."""

    def make(directory: Path) -> None:
        results = shutil.copytree(finished / "results", directory / "results")
        page, merged = (results / name for name in ("qc/vit-tiny.html", "embeddings/vit-tiny_embeddings_all.pt"))
        names = ("vit-tiny", "vit-tiny again")
        make_index(
            dict.fromkeys(names, page),
            dict.fromkeys(names, merged),
            page.with_name("both.html"),
            dict.fromkeys(names, FACTS),
        )
        older = {key: vector.bfloat16().float() for key, vector in list(torch.load(merged).items())[2:]}
        torch.save({"gone.mp4": torch.ones(192)} | older, page.with_name("older.pt"))
        output = page.with_name("compare.html")
        assert call_command("compare", page.with_name("older.pt"), merged, "--output", output).returncode == 0
        tasks = (outcomes.Task("lvef"), outcomes.Task("mitral_regurgitation_severity", 60, VIEWS))
        models = {"vitl": 0.9, "vith": 0.6, "vitg-384-direct": 0.25, "echoprime": 0.5, "panecho-direct": 0.4}
        for task in tasks:
            for model, skill in models.items():
                outcomes.write(results, task, model, skill)
        folders: dict[str, Any] = {model: {} for model in models}
        outcomes.pages(results, [task.name for task in tasks], list(models), folders, pictures=True)

    return made_once("pages", make) / "results/qc"


@pytest.fixture
def open_page(browser: Any, pages: Path) -> Iterator[Any]:
    """Opens a page at a width; nothing may go wrong in it, and nothing be asked for."""
    with ExitStack() as stack:
        yield lambda name, width=WIDTHS[0]: stack.enter_context(
            opened(browser, pages / name, viewport={"width": width, "height": 900})
        )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["vit-tiny.html", "index.html", "both.html", "compare.html", *EVALUATED])
def test_page_fits_its_window_and_every_picture_loads(open_page: Any, name: str, width: int) -> None:
    page = open_page(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    pictures = page.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt])")
    assert all(loaded and alt for loaded, alt in pictures)
    assert name != "vit-tiny.html" or len(pictures) > 20


@pytest.mark.parametrize("width", [1280, 1920])
@pytest.mark.parametrize("name", ["vit-tiny.html", "index.html", *EVALUATED])
def test_no_column_is_cut(open_page: Any, name: str, width: int) -> None:
    tables = open_page(name, width).evaluate(
        "[...document.querySelectorAll('.scroll')].map(s => [s.ariaLabel, s.scrollWidth - s.clientWidth])"
    )
    assert len(tables) > 1
    assert [label for label, cut in tables if cut > 0] == []


def test_tasks_sort_by_a_models_figure_and_by_what_is_said_of_it(open_page: Any) -> None:
    page = open_page(EVALUATED[0])
    table = page.locator("[aria-label='Models beside controls'] table")
    for heading, cell in (("model's", 4), ("metadata only", 5)):
        table.locator("th button", has_text=heading).click()
        values = table.locator("tbody tr").evaluate_all(f"trs => trs.map(tr => +tr.cells[{cell}].dataset.value)")
        assert values == sorted(values)
        assert len(set(values)) > 1
    table.locator("th button", has_text="in words").click()
    said = table.locator("tbody tr").evaluate_all("trs => trs.map(tr => tr.cells[8].textContent.slice(0, 5))")
    assert said == sorted(said)
    assert len(set(said)) == 2


def test_links_of_the_summary_lead_to_sections(open_page: Any) -> None:
    page = open_page("vit-tiny.html")
    targets = page.eval_on_selector_all(
        ".checks a, nav a[href^='#']", "links => links.map(a => a.getAttribute('href'))"
    )
    assert len(targets) > 15
    assert all(page.query_selector(target) for target in targets)


def test_tables_sort_and_totals_stay_last(open_page: Any) -> None:
    page = open_page("vit-tiny.html")
    table = page.locator("table.sortable", has_text="files found")
    column = "trs => trs.map(tr => tr.cells[0].textContent)"
    before = table.locator("tbody tr").evaluate_all(column)
    assert before == ["p10", "p11", "all folders"]
    heading = table.locator("th button", has_text="folder").first
    heading.click()
    heading.click()
    assert table.locator("tbody tr").evaluate_all(column) == ["p11", "p10", "all folders"]
    assert table.locator("th[aria-sort=descending]").count() == 1
    norms = page.locator("table.sortable", has_text="norm mean")
    norms.locator("th button", has_text="norm mean").click()
    values = norms.locator("tbody tr:not(.total)").evaluate_all("trs => trs.map(tr => +tr.cells[1].dataset.value)")
    assert values == sorted(values)


def test_many_folders_are_folded_on_the_screen_and_whole_on_paper(open_page: Any, pages: Path) -> None:
    collection = Collection(pages, clips=60)
    keys = [key for of in collection.folders.values() for key in of]
    collection.folders = {f"p{100 + i}": [key] for i, key in enumerate(keys)}
    collection.runs = {folder: collection.run(1, DIM) for folder in collection.folders}
    collection.page("many")
    page = open_page("qc/many.html")
    table = page.locator("[aria-label='Values'] tbody tr")
    shown = "rows => rows.filter(row => row.offsetParent).length"
    assert table.count() == 61
    assert table.evaluate_all(shown) == 21  # the worst 20 and their sum
    page.locator(".unfold", has_text="show all 61").first.click()
    assert page.locator("[aria-label='Files of each folder'] tbody tr").evaluate_all(shown) == 61
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert table.evaluate_all(shown) == 61
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_strips_show_frames_and_the_page_says_what_the_demo_is(open_page: Any) -> None:
    page = open_page("vit-tiny.html")
    assert page.locator(".strip img").count() >= 8
    assert page.locator(".strip .none").count() == 0
    said = page.locator(".banner").all_text_contents()
    assert "the vectors mean nothing" in said[0]
    assert any("3 patients: this says nothing" in text for text in said)


def test_comparison_tells_missing_keys_and_the_least_alike(open_page: Any) -> None:
    page = open_page("compare.html")
    assert page.locator(".facts dd").all_text_contents()[:4] == ["6", "1", "2", "0"]
    assert [mark.split() for mark in page.locator(".checks .mark").all_text_contents()] == [
        ["check"],
        ["not", "tested"],
        ["good"],
    ]
    page.locator("summary", has_text="Only in A (1)").click()
    assert page.get_by_text("gone.mp4").is_visible()
    assert page.locator("[aria-label='Least alike'] tbody tr").count() == 6


def test_the_pages_open_inside_snakemakes_report(browser: Any, finished: Path, tmp_path: Path) -> None:
    made = run_demo(finished, "--report", str(tmp_path / "report.zip"))
    assert made.returncode == 0, made.stdout
    shutil.unpack_archive(tmp_path / "report.zip", tmp_path)
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    inside = (tmp_path.as_uri(), "data:")
    page.on("request", lambda request: faults.append(request.url) if not request.url.startswith(inside) else None)
    page.goto((tmp_path / "report/report.html").as_uri())
    for name in ("Results", "Quality"):
        page.locator("a", has_text=name).first.click()
    row = page.locator("tr", has_text="vectors of vit-tiny")
    row.locator("a").first.click()
    shown = page.frame_locator("iframe")
    assert shown.locator("h1").text_content() == "vit-tiny embeddings"
    row.locator("a").last.click()
    assert page.get_by_text("Quality of the vectors of one model").is_visible()
    assert page.get_by_text("all models", exact=True).count() == 0  # the list has given way to the caption
    page.close()
    assert faults == []


def test_index_tells_equal_models(open_page: Any) -> None:
    page = open_page("both.html")
    for label in ("Linear CKA", "Neighbour overlap"):
        assert page.locator(f"[aria-label='{label}'] tbody tr").count() == 2
    assert page.locator("[aria-label='Linear CKA'] td").all_text_contents() == ["1.000"] * 4
