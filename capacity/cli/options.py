"""What a command may be given: options declared once, read at once.

Importing argparse and building its parser takes as long as a third of the estimate. So a command
line of plain `--name value` pairs is read here; any other (a slip, `--help`, `--name=value`, a
positional word) is handed to argparse, built of the same declarations, which reads it or says what
is wrong. Where both can read a line they read the same, and a test holds that.
"""

from __future__ import annotations

from capacity.errors import CapacityError, InputError, UnknownNameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Option:
    """An option: its flags, how its value is read, what help calls the value and says of it.

    read: from text; None keeps the text. An option without a metavar is a switch. many: may be
    repeated. dest: the name it is known by inside; otherwise its first long flag.
    """

    __slots__ = ("dest", "flags", "help", "many", "metavar", "read")

    def __init__(
        self,
        *flags: str,
        metavar: str = "",
        read: Callable[[str], Any] | None = None,
        help: str,
        many: bool = False,
        dest: str = "",
    ) -> None:
        self.flags = flags
        self.metavar = metavar
        self.read = read
        self.help = help
        self.many = many
        self.dest = dest or flags[-1].lstrip("-").replace("-", "_")

    @property
    def default(self) -> Any:
        """What stands for an option that was not given."""
        return None if self.metavar else False


class Command:
    """A command's declarations: its options in titled groups, and the words of its help.

    words: metavar and help of the positional words it takes, if it takes any; they arrive as `words`.
    """

    __slots__ = ("description", "examples", "groups", "name", "usage", "words")

    def __init__(
        self,
        name: str,
        *,
        usage: str,
        description: str,
        examples: Sequence[str],
        groups: Sequence[tuple[str, Sequence[Option]]],
        words: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self.usage = usage
        self.description = description
        self.examples = examples
        self.groups = groups
        self.words = words

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Values by name, for every option; raises CapacityError, or SystemExit(0) after printing help."""
        found = self.read_pairs(arguments)
        if found is None:
            from capacity.cli.parsing import Parser

            found = Parser(self).read(arguments)
        return found

    def read_pairs(self, arguments: Sequence[str]) -> dict[str, Any] | None:
        """Values by name where every argument is a switch or a flag with its value; else None."""
        known = {flag: option for _, options in self.groups for option in options for flag in option.flags}
        values: dict[str, Any] = {option.dest: option.default for option in known.values()}
        if self.words:
            values["words"] = []
        rest = iter(arguments)
        for flag in rest:
            option = known.get(flag)
            if option is None:
                return None
            if not option.metavar:
                values[option.dest] = True
                continue
            text = next(rest, "-")
            if text.startswith("-"):
                return None
            try:
                value = option.read(text) if option.read else text
            except Exception:  # noqa: BLE001 - whatever is wrong, argparse says it in its own words
                return None
            values[option.dest] = [*(values[option.dest] or ()), value] if option.many else value
        return values


def typed(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of one value whose CapacityError becomes argparse's, which adds the option's name."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except CapacityError as error:
            from argparse import ArgumentTypeError

            raise ArgumentTypeError(str(error)) from None

    return convert


def one_of(kind: str, names: Sequence[str]) -> Callable[[str], str]:
    """A reader of one of a few names, with the nearest suggested."""

    def read(text: str) -> str:
        if text.lower() in names:
            return text.lower()
        raise UnknownNameError(kind, text, names, f"known are {', '.join(names)}")

    return typed(read)


def whole(least: int = 1, most: int = 10**7) -> Callable[[str], int]:
    """A reader of a whole number in a range."""

    def read(text: str) -> int:
        digits = text.strip().replace("_", "")
        if not (digits.isascii() and digits.lstrip("+-").isdigit() and len(digits) < 19):
            raise InputError(f"{text[:60]!r} is not a whole number")
        value = int(digits)
        if not least <= value <= most:
            raise InputError(f"{value} is out of range: give {least} to {most}")
        return value

    return typed(read)
