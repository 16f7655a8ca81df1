"""mkdocs hooks: files beside docs/ become pages of the site, and links to them lead there."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")  # of Markdown, to a file


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and each file that a page links to."""
    sources = {ROOT / name: page for name, page in PAGES.items()}
    for source, page in sources.items():
        files.append(File.generated(config, page, content=source.read_text(encoding="utf-8")))
    for source in [*sources, *(ROOT / "docs").rglob("*.md")]:
        for target, _ in LINK.findall(source.read_text(encoding="utf-8")):
            path = (source.parent / target).resolve()
            name = path.relative_to(ROOT).as_posix()
            on_site = path.is_relative_to(ROOT / "docs") or name in PAGES or files.get_file_from_path(name)
            if path.is_file() and not on_site:
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files outside of docs/ lead to the copies on the site; drop what a block says to the tests."""
    on_site = {name: root for root, name in PAGES.items()}
    source = ROOT / on_site[page.file.src_uri] if page.file.src_uri in on_site else ROOT / "docs" / page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        path = (source.parent / link[1]).resolve()
        inside = path.is_relative_to(ROOT / "docs")
        name = path.relative_to(ROOT / "docs" if inside else ROOT).as_posix()
        up = "../" * page.file.src_uri.count("/")
        return f"]({up}{name if inside else PAGES.get(name, name)}{link[2] or ''})"

    return LINK.sub(moved, markdown).replace("```sh skip\n", "```sh\n")
