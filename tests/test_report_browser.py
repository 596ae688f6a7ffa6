"""The page in a real browser: its script runs, and nothing is refused by its own policy."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_runs import a_row, finished_run

from wbc_batch.rebuild import rebuild_report
from wbc_batch.sources import Cell

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium; on Debian: apt-get install chromium"
)


def browse(page: Path, profile: Path) -> tuple[str, str]:
    """Open a page without a window; its elements after its script, and what the console said."""
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
    ]
    command += [f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return found.stdout, "\n".join(re.findall(r"CONSOLE.*", found.stderr))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = []
    for name, count in (("slide-10", 3), ("slide-2", 12), ("<b>slide-1", 7)):
        cells = [Cell("in", f"{name}/{i}.png", None, name) for i in range(count)]
        rows += [a_row(cell, "monocyte", 0.9) for cell in cells]
    return rebuild_report(finished_run(tmp_path_factory.mktemp("browser") / "run", rows))


def test_the_policy_lets_the_pages_own_script_run(page: Path, tmp_path: Path) -> None:
    elements, console = browse(page, tmp_path / "profile")
    assert console == ""
    assert len(re.findall(r'<th[^>]*scope="col"[^>]*><button type="button">', elements)) == 9
    assert "<b>slide-1" not in elements


@pytest.mark.parametrize(("clicks", "order"), [(1, [3, 7, 12]), (2, [12, 7, 3])])
def test_a_click_on_a_heading_sorts(page: Path, tmp_path: Path, clicks: int, order: list) -> None:
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    click = "document.querySelectorAll('table.sortable th button')[6].click();" * clicks
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace("</body>", f"<script>{click}</script></body>"), encoding="utf-8")
    elements, _ = browse(copy, tmp_path / "profile")
    (table,) = re.findall(r'<table class="overview sortable">.*?</table>', elements, re.DOTALL)
    rows = re.findall(r'<tr><th scope="row">.*?</tr>', table, re.DOTALL)
    found = [int(re.findall(r'<td class="n" data-value="(\d+)"', row)[-3]) for row in rows]
    assert found == order
    assert table.count("aria-sort=") == 1
