"""Pages in a real browser: their script, keyboard, contrast, paper, and what their policy refuses."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_runs import a_row, draw, finished_run

from wbc_batch.rebuild import compare_runs, rebuild_report
from wbc_batch.schema import CELL_COLUMNS, CLASSES, UNIDENTIFIED
from wbc_batch.sources import Cell

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium; on Debian: apt-get install chromium"
)

WIDTHS = (390, 1024, 1920)
SLIDES = {"slide-10": 3, "slide-2": 12, "<b>slide-1": 7}


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a page can have: groups, known classes, a review, absolute counts, flags, errors."""
    place = tmp_path_factory.mktemp("browser")
    rows = []
    for slide, count in SLIDES.items():
        cells = [
            Cell("in", f"{slide}/{number}.png", None, f"{slide}/Monocyte")
            for number in range(count)
        ]
        rows += [a_row(cell, "monocyte", 0.9) for cell in cells]
        rows.append(a_row(Cell("in", f"{slide}/u.png", None, slide), UNIDENTIFIED, 0.4))
    rows.append(a_row(Cell("in", "slide-2/e.png", None, "slide-2"), None, None, "no image"))
    for number, label in enumerate(CLASSES):
        draw(place / "in" / f"{label}.png")
        cell = Cell(str(place / "in"), f"{label}.png", None, "slide-2/Monocyte")
        rows.append(a_row(cell, label, 0.6 + number / 100) | {"novelty": 2.0})
    confusion = {
        "counts": [[200 if i == j else 5 for j in range(5)] for i in range(5)],
        "data_sets": ["elsewhere"],
        "roles": ["not trained on"],
        "unidentified": [9] * 5,
    }
    record = {"model": {"name": "m", "confusion": confusion}}
    finished_run(place / "run", rows, CELL_COLUMNS, **record)
    review = place / "review.csv"
    review.write_text(
        "cell_id,reviewed_label,reviewed_by,reviewed_at\n"
        f"{rows[0]['cell_id']},monocyte,Ann,\n{rows[1]['cell_id']},basophil,Ann,\n"
    )
    counts = place / "counts.csv"
    counts.write_text("group,wbc\nslide-2,6.5\n")
    rebuild_report(place / "run", review=review, wbc_counts=counts)
    for row in rows[:3]:
        row["label"] = "lymphocyte"
    finished_run(place / "other", rows, CELL_COLUMNS, **record)
    compare_runs(place / "run", place / "other", place / "run")
    return place / "run"


@pytest.fixture
def opened(browser: "playwright.Browser", folder: Path) -> Iterator["playwright.Page"]:
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    yield page
    context.close()


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    browser: "playwright.Browser", folder: Path, name: str, scheme: str
) -> None:
    # Axe is a script of the test, which the page's own policy would refuse.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto((folder / name).as_uri())
    page.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        found = axe.Axe().run(page).response
        assert found["passes"]
        assert {
            (violation["id"], node["html"][:200])
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        } == set()
    context.close()


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_nothing_is_refused_and_nothing_needs_a_network(
    browser: "playwright.Browser", folder: Path, name: str
) -> None:
    context = browser.new_context(offline=True)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((folder / name).as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [(folder / name).as_uri()]
    assert page.locator("b", has_text="slide-1").count() == 0
    context.close()


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_its_window(
    browser: "playwright.Browser", folder: Path, name: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((folder / name).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # What is wider than its column can be scrolled to, by keys, too.
    clipped = """[...document.querySelectorAll('*')].filter(e =>
        getComputedStyle(e).overflowX === 'auto' && e.scrollWidth > e.clientWidth && e.tabIndex !== 0
    ).map(e => e.outerHTML.slice(0, 100))"""
    assert page.evaluate(clipped) == []
    page.close()


def test_figures_stay_apart_where_the_window_is_narrow(opened: "playwright.Page") -> None:
    opened.set_viewport_size({"width": min(WIDTHS), "height": 900})
    opened.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
    rows = opened.locator("table.bars tbody tr").all_inner_texts()
    lymphocytes = [" ".join(row.split()) for row in rows if row.startswith("lymphocyte")]
    # One of 17 is a lymphocyte; of 6.5 × 10⁹/L, that is 0.38.
    (counted,) = (row for row in lymphocytes if "0.38" in row)
    assert "0.38 0.01–1.86" in counted
    assert "5.9 0.1–28.7, 1 cell" in counted


def groups_in_order(page: "playwright.Page") -> list[str]:
    return page.locator("#differential tbody th a").all_inner_texts()


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_table_is_sorted_with_the_keyboard(opened: "playwright.Page", key: str) -> None:
    heading = opened.get_by_role("button", name="identified", exact=True).first
    heading.focus()
    opened.keyboard.press(key)
    assert groups_in_order(opened) == ["slide-10", "<b>slide-1", "slide-2"]
    assert opened.locator("#differential th[aria-sort=ascending]").count() == 1
    opened.keyboard.press(key)
    assert groups_in_order(opened) == ["slide-2", "<b>slide-1", "slide-10"]
    assert opened.locator("#differential th[aria-sort=descending]").count() == 1


def test_names_sort_by_their_numbers(opened: "playwright.Page") -> None:
    opened.get_by_role("button", name="Group").first.click()
    found = groups_in_order(opened)
    assert found.index("slide-2") < found.index("slide-10")


def test_a_group_is_reached_and_unfolded_with_the_keyboard(opened: "playwright.Page") -> None:
    last = opened.locator("details.group").last
    assert last.get_attribute("open") is None
    opened.locator("#differential tbody th a").last.focus()
    opened.keyboard.press("Enter")
    assert last.get_attribute("open") is not None
    last.locator("summary").focus()
    opened.keyboard.press("Enter")
    assert last.get_attribute("open") is None


def test_canonical_crops_are_shown_with_the_keyboard(opened: "playwright.Page") -> None:
    opened.evaluate(
        "document.querySelector('.crop').insertAdjacentHTML('beforeend', '<img class=canonical>')"
    )
    style = "getComputedStyle(document.querySelector('.crop .canonical')).visibility"
    assert opened.evaluate(style) == "hidden"
    opened.get_by_label(re.compile("Show canonical crops")).focus()
    opened.keyboard.press("Space")
    assert opened.evaluate(style) == "visible"


def test_every_stop_of_the_tab_key_can_be_seen(opened: "playwright.Page") -> None:
    outline = """(() => { const e = document.activeElement; const s = getComputedStyle(e);
        return [e.tagName, s.outlineStyle, parseFloat(s.outlineWidth)]; })()"""
    stops = []
    for _ in range(60):
        opened.keyboard.press("Tab")
        tag, style, width = opened.evaluate(outline)
        if tag == "BODY":
            break
        assert style != "none", tag
        assert width > 0, tag
        stops.append(tag)
    assert {"A", "BUTTON", "INPUT", "SUMMARY"} <= set(stops)


def test_paper_shows_the_differential_of_every_group(opened: "playwright.Page") -> None:
    opened.emulate_media(media="print")
    for table in opened.locator("table.bars").all():
        assert table.is_visible()
    assert opened.locator("nav").is_hidden()
    assert opened.pdf(prefer_css_page_size=True).startswith(b"%PDF")


@pytest.mark.skipif(
    not shutil.which("pdftotext"), reason="no pdftotext; on Debian: apt-get install poppler-utils"
)
def test_a_long_table_goes_on_on_the_next_sheet_under_its_heads(
    browser: "playwright.Browser", tmp_path: Path
) -> None:
    cells = [Cell("in", f"{i}.png", None, f"slide-{i:03d}") for i in range(50)]
    finished_run(tmp_path / "run", [a_row(cell, "monocyte", 0.9) for cell in cells])
    report = rebuild_report(tmp_path / "run")
    page = browser.new_page()
    page.goto(report.as_uri())
    page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    page.close()
    printed = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, check=True
    )
    first, second, *_ = printed.stdout.decode().split("\f")
    assert "slide-010" in first
    assert second.split()[:2] == ["Group", "basophil"]
