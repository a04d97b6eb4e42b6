"""The documentation's site is built without a broken link, and everybody can read it in a browser."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
sys.path.append(str(ROOT / "docs" / "_generate"))

import website  # noqa: E402


def test_the_navigation_leads_to_each_page_once() -> None:
    """Sections are the index's headings; what it does not name stands behind its neighbours."""
    sections = dict(website.navigation())
    assert list(sections)[:3] == ["Start", "Learn", "Build"]
    listed = [page for pages in sections.values() for page in pages]
    assert len(listed) == len(set(listed))
    assert set(website.pages()) == {*listed, ROOT / "docs" / "index.md"}
    assert ROOT / "plugins" / "automate-http" / "README.md" in sections["Connect"]


def test_a_page_is_written_for_a_renderer(tmp_path: Path) -> None:
    """A file's name is the block's title, a list is indented by four, links lead to the site."""
    page, files = ROOT / "docs" / "howto" / "loops.md", set[Path]()
    source = tmp_path / "page.md"
    source.write_text(
        "<!-- hidden\nassert 1\n-->\n\nText:\n- one\n  two\n\n  ```yaml cases file=a/b.yaml\n  a: [\n"
        "    b]\n  ```\n\n[`](../x`](../index.md#start) [x\ny](../../README.md) [z](../../noxfile.py)\n"
    )
    known = {**website.pages(), source: "howto/page.md"}
    moved = (
        source.read_text().replace("../../", f"{ROOT}/").replace("../index", f"{ROOT}/docs/index")
    )
    source.write_text(moved)
    assert website.for_a_renderer(source, known, files) == (
        'Text:\n\n- one\n    two\n\n    ```yaml title="a/b.yaml"\n    a: [\n      b]\n    ```\n\n'
        f"[`](../x`](../index.md#start) [x\ny](../index.md) [z](../files/noxfile.py)\n"
    )
    assert files == {ROOT / "noxfile.py"}
    assert page in known


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The built site's folder, and the address at which it is served."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("Zensical needs Python 3.11")
    folder = tmp_path_factory.mktemp("site") / "built"
    assert website.build(folder) == []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder / "html"))
    Thread(target=server.serve_forever, daemon=True).start()
    yield folder / "html", f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.long
@pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no chromium")
def test_everybody_can_read_the_site(site: tuple[Path, str]) -> None:
    """No link is broken, axe finds nothing, a telephone scrolls down only, nothing comes from afar."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    folder, address = site
    listed = re.findall(
        r"^- \[.+?\]\(([^)]+\.md)\)", (folder / "llms.txt").read_text(), re.MULTILINE
    )
    assert len(listed) > 100
    assert [each for each in listed if not (folder / each).is_file()] == []
    assert "loops" in json.dumps(json.loads((folder / "search.json").read_text()))
    assert 'class="filename"' in (folder / "howto" / "loops.html").read_text()
    foreign: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_context(color_scheme=scheme).new_page()
            page.on("request", lambda asked: foreign.append(asked.url))
            for name in ("index", "howto/loops", "explanation/compared", "howto/pages-tour"):
                page.set_viewport_size({"width": 1280, "height": 900})
                page.goto(f"{address}/{name}.html")
                found = Axe().run(page).response["violations"]
                told = [(each["id"], each["nodes"][0]["html"]) for each in found]
                # The theme's: each copy button stands in a landmark without a name.
                assert [each for each in told if each[0] != "landmark-unique"] == [], name
                page.set_viewport_size({"width": 390, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        browser.close()
    assert [each for each in foreign if not each.startswith((address, "data:", "blob:"))] == []
