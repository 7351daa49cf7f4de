"""Fonts for words in any script: families that have the characters that matplotlib's own font lacks."""

import contextlib
import unicodedata
import warnings
from functools import lru_cache
from typing import NamedTuple

from matplotlib import font_manager

BASE_FAMILY = "DejaVu Sans"  # comes with matplotlib


class Script(NamedTuple):
    """A writing system, a font family that has it, and the Debian package of that font."""

    name: str
    family: str
    package: str


_CJK = "fonts-noto-cjk"
_SYMBOLS = Script("symbol", "Symbola", "fonts-symbola")
# By the first word of a character's Unicode name. Kana and Hangul are before Han because some Han characters
# have another form in Japanese and Korean.
_SCRIPTS = {
    "HIRAGANA": Script("kana", "Noto Sans CJK JP", _CJK),
    "KATAKANA": Script("kana", "Noto Sans CJK JP", _CJK),
    "KATAKANA-HIRAGANA": Script("kana", "Noto Sans CJK JP", _CJK),
    "HANGUL": Script("Hangul", "Noto Sans CJK KR", _CJK),
    "BOPOMOFO": Script("Bopomofo", "Noto Sans CJK TC", _CJK),
    "CJK": Script("Han", "Noto Sans CJK SC", _CJK),
    "IDEOGRAPHIC": Script("Han", "Noto Sans CJK SC", _CJK),
    "FULLWIDTH": Script("full-width", "Noto Sans CJK SC", _CJK),
    "HALFWIDTH": Script("half-width", "Noto Sans CJK SC", _CJK),
}


def script(char: str) -> Script:
    """Return the script of a character, by its Unicode name."""
    name = unicodedata.name(char, "UNNAMED").split()[0]
    if name in _SCRIPTS:
        return _SCRIPTS[name]
    if unicodedata.category(char).startswith("S"):
        return _SYMBOLS
    return Script(name.capitalize(), f"Noto Sans {name.capitalize()}", "fonts-noto-core")


def font_families(text: str) -> list[str]:
    """Return DejaVu Sans and families that have the characters that it lacks.

    Warns if no installed font has a character.
    """
    lacking = frozenset(filter(_needs_glyph, text)) - _characters(BASE_FAMILY)
    if not lacking:
        return [BASE_FAMILY]
    fallback = _fallback(lacking, len(font_manager.fontManager.ttflist))
    if fallback.missing:
        _add_new_fonts()
        fallback = _fallback(lacking, len(font_manager.fontManager.ttflist))
    missing = [char for char in dict.fromkeys(text) if char in fallback.missing]
    for of_script in dict.fromkeys(map(script, missing)):
        examples = "".join(char for char in missing if script(char) == of_script)[:8]
        warnings.warn(
            f"no installed font shows {of_script.name} characters ({examples}): "
            f"install for example {of_script.family} (Debian: {of_script.package})",
            stacklevel=3,
        )
    return [BASE_FAMILY, *fallback.families]


class _Fallback(NamedTuple):
    """Font families that have characters, and the characters that no installed family has."""

    families: list[str]
    missing: frozenset[str]


@lru_cache(maxsize=64)
def _fallback(lacking: frozenset[str], installed: int) -> _Fallback:
    """Return families that have the lacking characters.

    Reading all installed fonts takes seconds on some machines. So fonts of the characters' scripts are read
    first, and the result is cached until the number of `installed` fonts changes.
    """
    scripts = set(map(script, lacking))
    preferred = [known.family for known in [*_SCRIPTS.values(), *scripts] if known in scripts]

    def rank(family: str) -> tuple[int, bool, bool, str]:
        preference = preferred.index(family) if family in preferred else len(preferred)
        return preference, not family.startswith("Noto Sans"), "Sans" not in family, family

    fonts = font_manager.fontManager.ttflist
    installed_families = {
        font.name for font in fonts if font.style == "normal" and font.weight in (400, "normal")
    }
    families: list[str] = []
    for family in sorted(installed_families, key=rank):
        if not lacking:
            break
        # Last Resort has a box for every character; colour fonts have images that matplotlib cannot draw
        if "Last Resort" in family or "Color" in family:
            continue
        covered = lacking & _characters(family)
        if covered:
            families.append(family)
            lacking -= covered
    return _Fallback(families, lacking)


def _characters(family: str) -> frozenset[str]:
    """Return the characters that the upright font of a family has a glyph for."""
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=[family])))
    return frozenset(map(chr, font.get_charmap()))


def _add_new_fonts() -> None:
    """Add fonts that were installed after matplotlib wrote its list of fonts, which it does not update."""
    known = {str(entry.fname) for entry in font_manager.fontManager.ttflist}
    for path in set(font_manager.findSystemFonts()) - known:
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # skip damaged fonts
            font_manager.fontManager.addfont(path)


def _needs_glyph(char: str) -> bool:
    """Return whether a character is visible: not spaces, controls, joiners and variation selectors."""
    if unicodedata.category(char) in {"Cc", "Cf", "Zs", "Zl", "Zp"}:
        return False
    return not unicodedata.name(char, "").startswith("VARIATION SELECTOR")
