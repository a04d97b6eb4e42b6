# ruff: noqa: T201  (a script)
"""
Builds the site of the documentation, with Zensical: `uvx nox -s site`.

The pages stay plain Markdown, as the repository shows them. The copies are adapted to the renderer:
a fence's file becomes its title, hidden blocks go, lists are indented by four. The navigation is
`docs/index.md`: its headings are the sections, and each item that begins with a link is a page.
Each page's Markdown lies beside it, and `llms.txt` lists them.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
FENCE = re.compile(r"^( *)```[^\n`]*\n.*?^\1```$", re.DOTALL | re.MULTILINE)
TARGET = re.compile(r"`[^`\n]*`|\]\(([^)\s]+)\)")


def pages() -> dict[Path, str]:
    """Return the pages with their places on the site; those beside `docs/` get one in it."""
    found = {page: page.relative_to(DOCS).as_posix() for page in sorted(DOCS.rglob("*.md"))}
    beside = (page for page in sorted(ROOT.glob("*.md")) if page.stem != "README")
    found |= {page: f"project/{page.stem.lower()}.md" for page in beside}
    for page in sorted([*ROOT.glob("plugins/*/README.md"), *ROOT.glob("examples/*/README.md")]):
        found[page] = f"{page.parent.parent.name}/{page.parent.name}.md"
    return found


def title_of(page: Path) -> str:
    """Return the first heading."""
    found = re.search(r"^# (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return re.sub(r"[`*]|\[([^\]]+)\]\([^)]*\)", r"\1", found[1]) if found else page.stem


def navigation() -> list[tuple[str, list[Path]]]:
    """Return the sections with their pages; a page that no item leads to follows its neighbours."""
    left, sections = dict.fromkeys(pages()), []
    del left[INDEX]
    for part in re.split(r"^## ", INDEX.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        links = re.findall(r"^- \[[^\]]+\]\(([^)#]+\.md)", text, re.MULTILINE)
        places = [(INDEX.parent / link).resolve() for link in links]
        listed = [page for page in dict.fromkeys(places) if page in left]
        for page in listed:
            del left[page]
        if listed:
            sections.append((heading, listed))
    for page in left:
        near = max(sections, key=lambda each: [e.parent for e in each[1]].count(page.parent))
        known = any(page.parent == each.parent for each in near[1])
        (near if known else _named(sections, page))[1].append(page)
    return sections


def _named(sections: list[tuple[str, list[Path]]], page: Path) -> tuple[str, list[Path]]:
    """Return the section for a page that is alone in its folder."""
    wanted = {"plugins": "Connect", "examples": "Learn", "api": "Reference"}
    folder = page.parent.name if page.name != "README.md" else page.parent.parent.name
    return next(each for each in sections if each[0] == wanted.get(folder, sections[-1][0]))


def for_a_renderer(page: Path, known: dict[Path, str], files: set[Path]) -> str:
    """Return *page* as the site has it; add other files that it links to to *files*."""
    text = re.sub(
        r"^<!-- hidden\n.*?^-->\n+", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    out, end = [], 0
    for fence in FENCE.finditer(text):
        out += [_prose(text[end : fence.start()], page, known, files), _fence(fence[0], fence[1])]
        end = fence.end()
    return "".join([*out, _prose(text[end:], page, known, files)])


def _fence(block: str, indent: str) -> str:
    """Return a block with its file as its title, indented as the list that it stands in."""
    first, _, rest = block.partition("\n")
    language, *words = first.strip(" `").split() or [""]
    file = next((word.partition("=")[2] for word in words if "=" in word), None)
    opening = f"{indent}```{language}" + (f' title="{file}"' if file else "")
    more = " " * (_indent(indent) - len(indent))
    return re.sub(r"^(?=.)", more, f"{opening}\n{rest}", flags=re.MULTILINE)


def _prose(text: str, page: Path, known: dict[Path, str], files: set[Path]) -> str:
    """Return *text* with lists indented by four, and links to where the site has their pages."""
    text = re.sub(r"^ +", lambda found: " " * _indent(found[0]), text, flags=re.MULTILINE)
    text = re.sub(r"^([^\s\-*|#>\d].*\n)(?=[-*] |\d+\. |\|)", r"\1\n", text, flags=re.MULTILINE)

    def moved(match: re.Match[str]) -> str:
        path, hash_, anchor = (match[1] or "").partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        file = (page.parent / unquote(path)).resolve()
        if (file / "README.md") in known:
            file /= "README.md"
        if file == ROOT / "README.md":
            file = INDEX
        if file in known:
            place = known[file]
        elif file.is_relative_to(DOCS):
            place = file.relative_to(DOCS).as_posix()
        else:
            files.add(file)
            place = f"files/{file.relative_to(ROOT).as_posix()}" + "/index.md" * file.is_dir()
        return f"]({os.path.relpath(place, Path(known[page]).parent)}{hash_}{anchor})"

    return TARGET.sub(moved, text)


def _indent(spaces: str) -> int:
    """Return the indentation that means the same to a renderer that counts in fours."""
    return (len(spaces) + 2) // 4 * 4


def write_sources(folder: Path) -> None:
    """Write what Zensical reads into *folder*: pages, pictures, linked files, settings."""
    known, files, texts = pages(), set[Path](), dict[str, str | Path]()
    for page, place in known.items():
        texts[place] = for_a_renderer(page, known, files)
    for file in sorted(files):
        place = f"files/{file.relative_to(ROOT).as_posix()}"
        inside = sorted(each for each in file.iterdir() if each.is_file()) if file.is_dir() else []
        if file.is_dir():
            links = "".join(f"- [{each.name}]({each.name})\n" for each in inside)
            texts[f"{place}/index.md"] = f"# {place.removeprefix('files/')}\n\n{links}"
        texts |= {f"{place}/{each.name}": each for each in inside} or {place: file}
    for file in DOCS.rglob("*"):
        if file.suffix in (".cast", ".css", ".js", ".png", ".svg", ".webp"):
            texts[file.relative_to(DOCS).as_posix()] = file
    for place, content in texts.items():
        target = folder / "docs" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copy(content, target)
        else:
            target.write_text(content, "utf-8")
    (folder / "zensical.toml").write_text(settings(), "utf-8")


def settings() -> str:
    """Return the settings of Zensical, with the navigation."""
    sections = []
    for heading, listed in navigation():
        entries = [f"    {{ {_quoted(title_of(p))} = {_quoted(pages()[p])} }},\n" for p in listed]
        sections.append(f"  {{ {_quoted(heading)} = [\n{''.join(entries)}  ] }},\n")
    nav = 'nav = [\n  { "Overview" = "index.md" },\n' + "".join(sections) + "]\n"
    text = (DOCS / "zensical.toml").read_text("utf-8")
    return text.replace("[project]\n", f"[project]\n{nav}", 1)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def add_markdown(sources: Path, site: Path) -> None:
    """Lay each page's Markdown beside it, and list them all in `llms.txt`."""
    known, index = pages(), INDEX.read_text("utf-8")
    for place in known.values():
        shutil.copy(sources / place, site / place)
    text = (DOCS / "zensical.toml").read_text("utf-8")
    (described,) = re.findall(r'^site_description = "(.+)"$', text, re.MULTILINE)
    said = re.findall(r"^- \[[^\]]+\]\(([^)#]+\.md)\)(?:: |, )(.+)$", index, re.MULTILINE)
    about = {(DOCS / link).resolve(): f": {words}" for link, words in said}
    lines = ["# automate-kernel", "", f"> {described}"]
    for heading, listed in navigation():
        lines += ["", f"## {heading}", ""]
        lines += [f"- [{title_of(page)}]({known[page]}){about.get(page, '')}" for page in listed]
    (site / "llms.txt").write_text("\n".join(lines) + "\n", "utf-8")


def make_accessible(site: Path) -> None:
    """Turn empty headings of tables into plain cells, since a screen reader reads nothing there."""
    for file in site.rglob("*.html"):
        text = file.read_text("utf-8")
        file.write_text(re.sub(r"<th([^>]*)></th>", r"<td\1></td>", text), "utf-8")


def broken_links(site: Path) -> Iterator[str]:
    """Yield the links of built pages whose file or heading is missing."""
    ids: dict[Path, set[str]] = {}
    for file in sorted(site.rglob("*.html")):
        text = file.read_text("utf-8")
        if file.name == "404.html":
            continue
        for target in re.findall(r'(?:href|src)="?([^"\s>]+)', text):
            path, _, anchor = html.unescape(target).partition("#")
            if re.match(r"[a-z]+:|//", html.unescape(target)):
                continue
            linked = (file.parent / unquote(path.partition("?")[0])).resolve() if path else file
            if linked.is_dir():
                linked /= "index.html"
            if not linked.is_file():
                yield f"{file.relative_to(site)}: {target} is not there"
            elif anchor and linked.suffix == ".html":
                if linked not in ids:
                    ids[linked] = set(re.findall(r'\bid="?([^"\s>]+)', linked.read_text("utf-8")))
                if unquote(anchor) not in ids[linked]:
                    yield f"{file.relative_to(site)}: {target} leads to no heading"


def build(folder: Path) -> list[str]:
    """Build the site below *folder*, in `html`; return the links that lead nowhere."""
    shutil.rmtree(folder, ignore_errors=True)
    write_sources(folder)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, check=True)
    make_accessible(folder / "html")
    add_markdown(folder / "docs", folder / "html")
    return list(broken_links(folder / "html"))


if __name__ == "__main__":
    broken = build(Path(sys.argv[1]).resolve())
    print(*broken, sep="\n", file=sys.stderr)
    sys.exit(bool(broken))
