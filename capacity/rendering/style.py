"""What a text may look like: width, colours and characters, decided once by whoever owns the stream."""

from __future__ import annotations

_ASCII = {
    "–": "-", "·": "-", "×": "x", "✔": "OK", "✘": "NO", "→": "->", "≤": "<=", "≥": ">=", "…": "...", "±": "+-", "²": "2",
    "│": "|", "┃": "!", "─": "-", "━": "=", "█": "#", "▓": "=", "▒": "+", "░": ":", "▚": "%", "▞": "&", "▌": "|", "∙": ".",
    "₂": "2", "√": "sqrt", "\N{NO-BREAK SPACE}": " ", "\N{NARROW NO-BREAK SPACE}": " ", "µ": "u", "—": "-", "η": "eta",
}  # fmt: skip

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_PARTS = ("34", "36", "32", "33", "35", "94", "96")
_SHADES = "█▒▓░▚▞▌"


def harmless(text: str) -> str:
    """The text on one line, with every control or invisible character written as an escape.

    From a hostile file they could move the cursor, forge lines, or turn words round.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    if character.isspace() and code >= 0xA0 and code not in (0x2028, 0x2029):
        return " "  # a no-break or a narrow space
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Style:
    """Width in columns, and whether colours and characters beyond ASCII may be used."""

    __slots__ = ("colour", "unicode", "width")

    def __init__(self, *, width: int = 80, colour: bool = False, unicode: bool = True) -> None:
        self.width = width
        self.colour = colour
        self.unicode = unicode

    def text(self, value: object) -> str:
        """Words from anywhere, made harmless, and ASCII where the stream needs it."""
        return self.drawn(harmless(str(value)))

    def drawn(self, text: str) -> str:
        """The house's own characters, or their ASCII stand-ins."""
        if self.unicode or text.isascii():
            return text
        text = "".join(_ASCII.get(character, character) for character in text)
        return text.encode("ascii", "backslashreplace").decode()

    def paint(self, text: str, *names: str) -> str:
        """The text in a colour or weight; unchanged without colours."""
        if not self.colour or not text:
            return text
        return f"\x1b[{';'.join(_CODES[name] for name in names)}m{text}\x1b[0m"

    def part(self, index: int, length: int) -> str:
        """`length` cells of the part number `index` of a bar: told apart by shade, or by colour."""
        if self.colour:
            return f"\x1b[{_PARTS[index % len(_PARTS)]}m{self.drawn('█') * length}\x1b[0m" if length else ""
        return self.drawn(_SHADES[index % len(_SHADES)]) * length
