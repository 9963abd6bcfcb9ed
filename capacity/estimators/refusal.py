"""Bad values: one is refused with a line; of a column the rows are noted, and the others go on."""

from __future__ import annotations

from capacity import ops
from capacity.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = Callable[[Callable[[Any], Any]], str]
    # Rows that are refused, and what to tell each.
    Refused = list[tuple[Any, Message]]

_refused: Refused | None = None


class RefusedError(InputError):
    """A refused value; message: what to tell any row of it."""

    def __init__(self, message: Message) -> None:
        super().__init__(message(first))
        self.message = message


def refuse(condition: Any, message: Message) -> None:
    """Refuse a value that meets a condition.

    message: what was wrong, its value, what to do; it is given a function that takes the row of any value (the value
    itself, where that is no column). Raises InputError, or notes the rows while `noting` is open.
    """
    if not ops.anywhere(condition):
        return
    if not ops.is_column(condition) or _refused is None:
        raise RefusedError(message)
    _refused.append((condition, message))


def first(value: Any) -> Any:
    """A value, or that of the first row."""
    return at(value, 0)


def at(value: Any, index: int) -> Any:
    """A value, or that of a row, as a plain number or text."""
    if not ops.is_column(value):
        return value
    row = value[index]
    return row.item() if hasattr(row, "item") else row


class noting:  # noqa: N801 - a context manager, without the import of contextlib
    """While open, rows of columns that are refused are collected instead of raised."""

    __slots__ = ("_outer",)

    def __enter__(self) -> Refused:
        global _refused
        self._outer, _refused = _refused, []
        return _refused

    def __exit__(self, *_: object) -> None:
        global _refused
        _refused = self._outer
