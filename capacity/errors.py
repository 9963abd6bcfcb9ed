"""Errors a user sees.

Every one is a single line that says what was wrong, the value, where it came from and what to do.
The command line prints it and exits with status 2; in Python it is raised.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class CapacityError(Exception):
    """Base of all errors raised on purpose; its message is one line, fit to be shown to a user."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class QuantityError(CapacityError, ValueError):
    """A number or a unit that cannot be read without guessing."""


class InputError(CapacityError, ValueError):
    """A value that is out of range, contradictory or missing."""


class UnknownNameError(CapacityError, LookupError):
    """A name that is not in the catalogue or the registry, with the nearest names that are."""

    def __init__(self, kind: str, name: str, known: Iterable[str], advice: str = "") -> None:
        # difflib costs 5 ms to import: only a mistake pays for it.
        from difflib import get_close_matches

        shown = name if len(name) <= 60 else name[:57] + "..."
        spelt = {one.lower(): one for one in known}
        near = [spelt[one] for one in get_close_matches(name.lower(), list(spelt), n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(near)}?" if near else advice
        super().__init__(f"unknown {kind} {shown!r}" + (f": {hint}" if hint else ""))


class FileFormatError(CapacityError):
    """A file that is missing, truncated, too large or not what it claims to be."""


class UnsupportedArchitectureError(CapacityError):
    """A model whose architecture the importers do not know; they never guess."""
