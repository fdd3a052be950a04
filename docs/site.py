"""MkDocs hooks: add pages from outside docs/, and write the reference of the public names."""

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/*.md",
    "benchmarks/*/*.md",
    "benchmarks/*/*.png",
    "benchmarks/*/weights/README.md",
    "benchmarks/reliability/*.json",
    "examples/*.py",
    "src/tastemaker/nano/weights/MODEL_CARD.md",
    "NOTICE",
)
GROUPS = {
    "Commands": lambda name, home: name.islower() and not home.startswith("tastemaker.core"),
    "Objects": lambda name, home: not name.islower() and not name.isupper(),
    "Tables of names": lambda name, home: name.isupper(),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to outside of docs/."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at where their pages are in the site."""
    name = page.file.src_uri
    if name == "api.md":
        return markdown + _reference()
    if "/" not in name:
        return re.sub(r"\]\((?:\.\./|docs/)", "](", markdown)
    return re.sub(r"(\]\((?:\.\./)+)docs/", r"\1", markdown)


def _reference() -> str:
    """Write a section per group of public names, an entry per name, from its docstring."""
    sys.path.insert(0, str(ROOT / "src"))
    from tastemaker.core.lazy import exported

    names = sorted(exported(ROOT / "src/tastemaker/__init__.py").items())
    lines: list[str] = []
    for title, belongs in GROUPS.items():
        lines += ["", f"## {title}", ""]
        for name, home in names:
            if belongs(name, home):
                lines += [f"::: {home}.{name}", ""]
    return "\n".join(lines)
