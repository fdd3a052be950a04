"""The page's files: small, of one piece, and without a way for text to become markup."""

import re
from pathlib import Path

import tastemaker

STATIC = Path(tastemaker.__file__).parent / "studio" / "static"
FILES = sorted(STATIC.iterdir())
SCRIPTS = {path.name: path.read_text("utf-8") for path in FILES if path.suffix == ".js"}
PAGE = (STATIC / "index.html").read_text("utf-8")
STYLE = (STATIC / "studio.css").read_text("utf-8")


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 100_000


def test_nothing_comes_from_elsewhere() -> None:
    for path in FILES:
        addresses = re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"']*", path.read_text("utf-8"))
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path.name


def test_a_strict_policy_blocks_nothing_of_the_page() -> None:
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle=|\son\w+=", PAGE) == []
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_no_text_becomes_markup() -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc"
    assert [name for name, text in SCRIPTS.items() if re.search(ways, text)] == []


def test_imports_and_files_belong_together() -> None:
    texts = [PAGE, *SCRIPTS.values()]
    named = {
        name
        for text in texts
        for name in re.findall(r'(?:from "\./|(?:src|href)="static/)([\w.]+)"', text)
    }
    assert named | {"index.html"} == {path.name for path in FILES}


def test_scripts_name_elements_that_the_page_has() -> None:
    ids = set(re.findall(r'\bid="([\w-]+)"', PAGE))
    for name, text in SCRIPTS.items():
        used = {
            one or other for one, other in re.findall(r'\bpage\.(\w+)|\bpage\["([\w-]+)"\]', text)
        }
        assert used <= ids, name
    shown = re.findall(r'showScreen\("(\w+)"\)', "".join(SCRIPTS.values()))
    assert set(shown) == {"opening", "welcome", "judging", "end"} <= ids


def relative_luminance(colour: str) -> float:
    """WCAG 2's, of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(relative_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand() -> None:
    assert contrast("#ffffff", "#000000") == 21
    assert round(contrast("#ffffff", "#767676"), 2) == 4.54


def test_text_has_contrast_aa_in_light_and_dark() -> None:
    schemes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in STYLE.split("@media", 2)
    ]
    light, dark = schemes[:2]
    pairs = [(ink, ground) for ink in ("ink", "muted", "accent") for ground in ("paper", "card")]
    pairs += [("on-accent", "accent"), ("warn", "warn-soft"), ("paper", "best"), ("paper", "worst")]
    for scheme in (light, dark):
        for ink, ground in pairs:
            assert contrast(scheme[ink], scheme[ground]) >= 4.5, (ink, ground, scheme)
