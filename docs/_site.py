"""Hooks of mkdocs.yml: what the site has besides docs/*.md.

- `project.md`, the README;
- `repository/...`, the files outside docs/ that pages link to, so that no link leaves the site;
- `reference/...`, one page for each chapter (package) of `steer`, `vectorstore` and `agents`, with its public modules.
"""

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("steer", "vectorstore", "agents")
LINK = re.compile(r"(\[[^\]]*\])\(([^)#\s]+)(#[^)\s]*)?\)")
README = "project.md"
# Several arguments that one docstring entry explains, with the lines that go on with it.
SHARED = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+):(?P<text>.*(?:\n(?P=indent) +.*)*)$", re.MULTILINE)


def chapters() -> dict[str, list[str]]:
    """The public modules of each package, by the package's dotted name; a package comes before its modules."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        for init in sorted((ROOT / package).rglob("__init__.py")):
            name = ".".join(init.parent.relative_to(ROOT).parts)
            modules = sorted(path.stem for path in init.parent.glob("*.py") if not path.stem.startswith("_"))
            found[name] = [name, *(f"{name}.{module}" for module in modules)]
    return found


def reference_page(chapter: str, modules: list[str]) -> str:
    """Markdown for mkdocstrings: the chapter's own docstring, then each module with what is public in it."""
    first, *others = modules
    parts = [f"# {chapter}\n", f"::: {first}\n    options: {{members: false, show_root_heading: false}}\n"]
    return "\n".join(parts + [f"::: {module}\n" for module in others])


def linked(markdown: str, source: Path) -> Iterator[tuple[str, Path]]:
    """The relative links of a page that lies at `source`, each with the path in the repository that it leads to."""
    for _, target, _ in LINK.findall(markdown):
        if "://" not in target and not target.startswith("mailto:"):
            yield target, Path(os.path.normpath(source.parent / target))


def uri_of(path: Path) -> str | None:
    """Where a file of the repository is in the site; None for folders, which the site does not show."""
    if path == ROOT / "README.md":
        return README
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    return f"repository/{path.relative_to(ROOT).as_posix()}" if path.is_file() else None


def rewrite(markdown: str, source: Path, uri: str) -> str:
    """The page with its links as they must be in the site, where it is at `uri`."""

    def change(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        paths = dict(linked(match.group(0), source))
        if target not in paths:
            return match.group(0)
        place = uri_of(paths[target])
        if place is None:
            return text[1:-1]
        return f"{text}({posixpath.relpath(place, posixpath.dirname(uri) or '.')}{anchor or ''})"

    return LINK.sub(change, markdown)


def on_config(config: Any) -> Any:
    """Name the pages of the reference in the navigation."""
    names = list(chapters())
    pages = [{package: [f"reference/{n}.md" for n in names if n.split(".")[0] == package]} for package in PACKAGES]
    config.nav.append({"Reference": pages})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the README, the files that pages link to, and the pages of the reference."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, README, content=rewrite(readme, ROOT / "README.md", README)))
    sources = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    targets = {path for source in sources for _, path in linked(source.read_text(encoding="utf-8"), source)}
    for path in sorted(targets):
        uri = uri_of(path)
        if uri is not None and uri.startswith("repository/"):
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    for chapter, modules in chapters().items():
        uri = f"reference/{chapter}.md"
        files.append(File.generated(config, uri, content=reference_page(chapter, modules)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links that leave docs/ lead to the copies in the site."""
    path = Path(page.file.abs_src_path or ROOT)
    return rewrite(markdown, path, page.file.src_uri) if path.is_relative_to(ROOT / "docs") else markdown


class SharedArguments(griffe.Extension):
    """Give each argument of an entry `a, b: text` an entry of its own, so that its name is checked too."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of what was loaded."""
        if obj.docstring is not None:
            obj.docstring.value = SHARED.sub(self._entries, obj.docstring.value)

    @staticmethod
    def _entries(match: re.Match[str]) -> str:
        return "\n".join(f"{match['indent']}{name}:{match['text']}" for name in match["names"].split(", "))
