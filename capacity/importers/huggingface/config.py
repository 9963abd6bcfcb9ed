"""Typed, bounded access to a Hugging Face config: every mistake in it becomes one clear line."""

from __future__ import annotations

from capacity.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_REQUIRED: Any = object()
LARGEST_COUNT = 10**9


class Config:
    """A config mapping that knows where it came from.

    Getters raise InputError when a value is missing (and no default is given), of the wrong type or absurd.
    A value that is null counts as missing.
    """

    def __init__(self, data: dict[str, Any], where: str) -> None:
        self.data = data
        self.where = where

    def _get(self, name: str, default: Any) -> Any:
        value = self.data.get(name)
        if value is None:
            if default is _REQUIRED:
                raise InputError(f"{self.where}: {name} is missing; the architecture needs it")
            return default
        return value

    def _refuse(self, name: str, value: Any, wanted: str) -> InputError:
        shown = repr(value)
        return InputError(f"{self.where}: {name} is {shown[:60]}; it must be {wanted}")

    def count(self, name: str, default: Any = _REQUIRED, *, least: int = 1) -> Any:
        """A whole number from `least` to a billion; the default is returned as it is."""
        value = self._get(name, default)
        if value is default and default is not _REQUIRED:
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST_COUNT:
            raise self._refuse(name, value, f"a whole number from {least} to {LARGEST_COUNT}")
        return value

    def number(self, name: str, default: Any = _REQUIRED) -> Any:
        """A finite number."""
        value = self._get(name, default)
        if value is default and default is not _REQUIRED:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
            raise self._refuse(name, value, "a finite number")
        return value

    def flag(self, name: str, default: Any = _REQUIRED) -> bool:
        """True or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._refuse(name, value, "true or false")
        return value

    def text(self, name: str, default: Any = _REQUIRED) -> str:
        """A string."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self._refuse(name, value, "a string")
        return value

    def items(self, name: str, default: Any = _REQUIRED) -> list[Any]:
        """A list of at most 10,000 items."""
        value = self._get(name, default)
        if not isinstance(value, (list, tuple)) or len(value) > 10_000:
            raise self._refuse(name, value, "a list of at most 10,000 items")
        return list(value)

    def named(self, *names: str) -> str:
        """The first of several names of one fact that the config gives; the first of all where it gives none."""
        return next((name for name in names if self.has(name)), names[0])

    def has(self, name: str) -> bool:
        """Whether the config gives a value that is not null."""
        return self.data.get(name) is not None

    def sub(self, name: str, default: Any = _REQUIRED) -> Config:
        """A nested config."""
        value = self._get(name, default)
        if not isinstance(value, dict):
            raise self._refuse(name, value, "an object")
        return Config(value, f"{self.where}: {name}")
