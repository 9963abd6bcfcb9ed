"""Frozen records at a twentieth of a dataclass's start-up cost.

The standard `dataclass` compiles six methods for every class, and imports `inspect` to do so: 10 ms
for importing it and half a millisecond a class, more than a whole estimate may take. These records
share one set of methods instead; type checkers see them as frozen dataclasses.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

    T = TypeVar("T", bound="Record")
else:

    def dataclass_transform(**_: object) -> object:
        """Tell type checkers, and nobody else, that subclasses are dataclasses."""
        return lambda decorated: decorated


@dataclass_transform(frozen_default=True)
class Record:
    """Base of all records: fields are the class's annotations, in order; defaults are its class attributes.

    A default is shared by all instances, so it must not be changed. Records compare by value.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _known: ClassVar[frozenset[str]] = frozenset()
    _required: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        own = tuple(
            name
            for name, kind in getattr(cls, "__annotations__", {}).items()
            if name not in cls._fields and not str(kind).startswith("ClassVar")
        )
        cls._fields = cls._fields + own
        cls._known = frozenset(cls._fields)
        cls._required = frozenset(name for name in cls._fields if not hasattr(cls, name))

    def __init__(self, *args: Any, **given: Any) -> None:
        if args:
            if len(args) > len(self._fields):
                raise TypeError(f"{type(self).__name__} takes {len(self._fields)} fields, {len(args)} given")
            named = len(given)
            given |= zip(self._fields, args, strict=False)
            if len(given) != named + len(args):
                raise TypeError(
                    f"{type(self).__name__}: a field among {', '.join(self._fields[: len(args)])} given twice"
                )
        if not self._known.issuperset(given):
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(given.keys() - self._known))}")
        if not given.keys() >= self._required:
            raise TypeError(f"{type(self).__name__} lacks {', '.join(sorted(self._required - given.keys()))}")
        object.__setattr__(self, "__dict__", given)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: use replace(record, {name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._fields)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{type(self).__name__}({shown})"

    def __copy__(self) -> Self:
        return self


def replace(record: T, **changes: Any) -> T:
    """A copy of a record with some fields changed."""
    if not changes.keys() <= record._known:
        raise TypeError(f"{type(record).__name__} has no field {', '.join(sorted(changes.keys() - record._known))}")
    copy = object.__new__(type(record))
    object.__setattr__(copy, "__dict__", {**record.__dict__, **changes})
    return copy


def fields(record: Record | type[Record]) -> tuple[str, ...]:
    """Names of a record's fields, in order."""
    return record._fields


def asdict(record: Any) -> Any:
    """A record as plain dictionaries and lists, all the way down."""
    if isinstance(record, Record):
        return {name: asdict(getattr(record, name)) for name in record._fields}
    if isinstance(record, dict):
        return {key: asdict(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [asdict(value) for value in record]
    return record
