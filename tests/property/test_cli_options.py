"""The short way of reading a command line agrees with argparse wherever it reads one at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capacity.cli import COMMANDS, command
from capacity.cli.parsing import Parser
from capacity.errors import CapacityError

VALUES = [
    "7e9",
    "7B",
    "0",
    "-1",
    "8",
    "3",
    "",
    " ",
    "x",
    "-",
    "--",
    "-v",
    "--json",
    "a b",
    "=",
    "2.5",
    "gpu",
    "1e999",
    "-7e9",
]
FLAGS = sorted(
    {
        flag
        for name in COMMANDS
        for _, group in command(name).COMMAND.groups
        for option in group
        for flag in option.flags
    }
)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(COMMANDS)),
    pairs=st.lists(st.tuples(st.sampled_from(FLAGS), st.lists(st.sampled_from(VALUES), max_size=2)), max_size=5),
)
def test_both_readers_agree(name, pairs):
    declared = command(name).COMMAND
    arguments = [word for flag, values in pairs for word in (flag, *values)]
    short = declared.read_pairs(arguments)
    if short is not None:
        assert short == Parser(declared).read(arguments)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--params", "7e9"], ["--params", "7B", "--tp", "8", "-v"], ["--catalogue", "a", "--catalogue", "b"]],
)
def test_plain_pairs_need_no_argparse(arguments):
    assert command("estimate").COMMAND.read_pairs(arguments) is not None


@pytest.mark.parametrize(
    "arguments",
    [["--params"], ["--params=7e9"], ["-h"], ["7e9"], ["--params", "-7e9"], ["--parms", "7e9"], ["--tp", "x"]],
)
def test_all_else_is_left_to_argparse(arguments):
    declared = command("estimate").COMMAND
    assert declared.read_pairs(arguments) is None
    if arguments not in (["--params=7e9"], ["-h"]):
        with pytest.raises(CapacityError):
            declared.read(arguments)
