"""argparse with the house's manners: one-line errors, the nearest name suggested, help in 80 columns."""

from __future__ import annotations

import argparse
import re

from capacity.errors import CapacityError, InputError, UnknownNameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn

HELP_WIDTH = 80


class _Help(argparse.HelpFormatter):
    """Examples stay as they were written; the width is fixed, so argparse need not ask the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=HELP_WIDTH)

    def _fill_text(self, text: str, width: int, indent: str) -> str:  # noqa: ARG002 - argparse's signature
        return "\n".join(indent + line for line in text.splitlines())


class Parser(argparse.ArgumentParser):
    """A parser of one command that raises CapacityError instead of printing its usage."""

    def __init__(self, name: str, *, usage: str, description: str, examples: Iterable[str]) -> None:
        super().__init__(
            prog=f"capacity {name}",
            usage=f"capacity {name} {usage}",
            description=description,
            epilog="examples:\n" + "\n".join(f"  {line}" for line in examples),
            formatter_class=_Help,
            allow_abbrev=False,
        )
        # So that `--params -7B` is told it must be positive, not that a value is missing.
        self._negative_number_matcher = re.compile(r"^-(\d|\.\d|inf|nan)", re.IGNORECASE)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Read the command line; raises CapacityError with the nearest option for a misspelt one."""
        namespace, unknown = self.parse_known_args(arguments)
        for word in unknown:
            if word.startswith("-") and word != "-":
                known = [option for option in self._option_string_actions if option.startswith("--")]
                raise UnknownNameError("option", word.split("=", 1)[0], known, f"see `{self.prog} --help`")
            raise InputError(f"unexpected argument {word!r}: see `{self.prog} --help`")
        return namespace

    def error(self, message: str) -> NoReturn:
        """Turn argparse's complaint into the one error the command line prints."""
        raise InputError(message)


def typed(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of one value whose CapacityError becomes argparse's, which adds the option's name."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except CapacityError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

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
