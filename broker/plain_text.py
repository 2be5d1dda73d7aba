"""Text of others, made safe for a terminal: nothing in it moves a cursor, hides, or turns a line around."""

import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_BLANK = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0))
    # Variation selectors: a whole text can be written in them, after one letter.
) | frozenset(map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
"""Letters and marks by category, and yet nothing to see (Unicode's Default_Ignorable_Code_Point)."""


_SHORT = 40
"""An id of a call is no longer, and stands there whole; every secret is."""

_BEGINNING = 24
"""Of what a person wrote to find something by; a token has a header there, and its signature at its end."""


def sought(text: str) -> str:
    """What nobody found, for the sentence that says so: it may be a credential, in the wrong place."""
    return f"'{plain(text, _BEGINNING)}'" if len(text) > _SHORT else f"'{plain(text)}'"


def plain(text: str, most: int = 200) -> str:
    """`text` on one line, each character that does not show as itself written as an escape.

    Args:
        most: where the text is cut, in characters, before any of them becomes an escape.
    """
    if len(text) > most:
        text = text[: most - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if unicodedata.category(character) not in _HIDDEN and character not in _BLANK
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )
