"""Write the lists of modules in docs/architecture.md anew, from the first lines of the modules' docstrings.

python docs/_modules.py
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("steer", "vectorstore", "agents")
LISTS = re.compile(r"(?<=<!-- modules -->\n).*?(?=<!-- end of modules -->)", re.DOTALL)


def summary(path: Path) -> str:
    """The first sentence or line of a module's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n")[0].rstrip(".").replace("|", "\\|")


def chapters(package: str) -> list[Path]:
    """The package's folders that hold modules, itself first."""
    return sorted(init.parent for init in (ROOT / package).rglob("__init__.py"))


def modules(folder: Path) -> list[Path]:
    """The modules right in a folder, `__init__.py` aside."""
    return sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")


def lists() -> str:
    """A heading and a table for each chapter."""
    parts = []
    for package in PACKAGES:
        for folder in chapters(package):
            name = folder.relative_to(ROOT).as_posix()
            level = "##" if name == package else "###"
            parts += [f"{level} {name}/", "", f"{summary(folder / '__init__.py')}.", ""]
            if rows := [f"| `{path.name}` | {summary(path)} |" for path in modules(folder)]:
                parts += ["| module | |", "|---|---|", *rows, ""]
    return "\n" + "\n".join(parts) + "\n"


def renewed(page: str) -> str:
    """The page with lists as the modules are now."""
    return LISTS.sub(lambda _: lists(), page)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
