"""The two streams: data to stdout, talk to stderr, nothing hostile on either."""

from __future__ import annotations

import os
import sys

from capacity.rendering.style import Style, harmless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

DEFAULT_WIDTH, NARROWEST, WIDEST = 80, 40, 120


def style(*, plain: bool = False) -> Style:
    """How stdout may be written: its width, its colours, its characters."""
    stream = sys.stdout
    return Style(
        width=_width(stream),
        colour=not plain and _colour(stream),
        unicode=not plain and _unicode(stream),
    )


def write(text: str) -> None:
    """Write a result to stdout; a reader that has gone (`| head`) is no error."""
    stream = sys.stdout
    if stream is None:  # closed by the caller
        return
    try:
        stream.write(_encodable(text, stream))
        stream.flush()
    except BrokenPipeError:
        _discard(stream)
    except OSError as error:
        _discard(stream)
        from capacity.errors import CapacityError

        raise CapacityError(f"cannot write to standard output: {error.strerror or error}") from None


def complain(message: str) -> None:
    """One line on stderr."""
    stream = sys.stderr
    if stream is None:
        return
    line = harmless(f"capacity: error: {message}")
    try:
        stream.write(_encodable(line, stream) + "\n")
        stream.flush()
    except OSError:
        _discard(stream)


def _encodable(text: str, stream: TextIO) -> str:
    """What the stream cannot encode is written as an escape instead of failing."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _discard(stream: TextIO) -> None:
    """Point the stream at nothing, so that the interpreter's last flush is quiet."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    except (OSError, ValueError):
        pass


def _colour(stream: TextIO | None) -> bool:
    environment = os.environ
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return stream is not None and stream.isatty()


def _unicode(stream: TextIO | None) -> bool:
    try:
        "█▓▒░–✔·".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _width(stream: TextIO | None) -> int:
    """COLUMNS when it is set, else the terminal's width, else 80; kept where the layout is readable."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isascii() and columns.isdigit() and len(columns) < 10 else 0
    if not width:
        try:
            width = os.get_terminal_size(stream.fileno()).columns if stream is not None else 0
        except (OSError, ValueError):
            width = 0
    return min(max(width or DEFAULT_WIDTH, NARROWEST), WIDEST)
