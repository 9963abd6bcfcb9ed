"""The command line's manners: streams, statuses, colours, complaints."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from capacity.cli import main

HEAVY = (
    "numpy",
    "pandas",
    "matplotlib",
    "torch",
    "difflib",
    "shutil",
    "json",
    "dataclasses",
    "inspect",
    "importlib.metadata",
)
# What a plain line of `--name value` pairs can do without.
AVOIDABLE = ("argparse", "typing", "re", "textwrap")


def capacity(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "capacity", *arguments],
        capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment}, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["estmate"], "did you mean estimate"),
        (["estimate"], "give one of --params, --model, --config, --module, --onnx and --checkpoint"),
        (["estimate", "--parms", "7e9"], "did you mean --params"),
        (["estimate", "--params=7e9", "--tokns=1"], "did you mean --tokens"),
        (["estimate", "--params", "-7B"], "argument --params: '-7B' is not positive"),
        (["estimate", "--params", "nan"], "argument --params: 'nan' is not a quantity"),
        (["estimate", "--params", "7G"], "write B for 10^9"),
        (["estimate", "--params", "7e9", "--mode", "trian"], "did you mean train?"),
        (["estimate", "--params", "7e9", "--mode", "bogus"], "serve, decode, prefill, infer, deploy"),
        (["estimate", "--params", "7e9", "--mode", "infer"], "networks that --module or --onnx name"),
        (["estimate", "--module", "x:y", "--mode", "serve"], "takes train or infer"),
        (["estimate", "--params", "7e9", "--model", "gpt2"], "--params and --model given"),
        (["estimate", "--params", "7e9", "--json", "--plain"], "--json and --plain given"),
        (["estimate", "--params", "7e9", "--device", "h1o0-sxm"], "did you mean h100-sxm"),
        (["estimate", "--params", "7e9", "extra"], "unexpected argument 'extra'"),
        (["estimate", "--params"], "argument --params: expected one argument"),
        (["estimate", "--params", "7e9", "--explain", "step_tme"], "did you mean step_time"),
        (["devices", "h1oo-sxm"], "did you mean h100-sxm"),
        (["devices", "--kind", "gpuu"], "did you mean gpu"),
        (["models", "lamma-3.1-8b"], "did you mean llama-3.1-8b"),
        (["validate", "local", "--data", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["validate", "platform", "--data", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["models", "--family", "nobody"], "no model of the catalogue is 'nobody'"),
    ],
)
def test_a_slip_gets_one_line_and_status_two(arguments, words, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("capacity: error: ")
    assert err.count("\n") == 1
    assert words in err


def test_an_escape_sequence_in_an_argument_is_shown_not_obeyed(capsys):
    assert main(["estimate", "--model", "a\x1b[2Jb\nc\udcff"]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert err.count("\n") == 1


def test_interruption_is_quiet(monkeypatch, capsys):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("capacity.estimators.answer.estimate", interrupt)
    assert main(["estimate", "--params", "7e9"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_left_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "capacity", "devices"],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "capacity", "models"], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"capacity: error: cannot write to standard output")
    assert done.stderr.count(b"\n") == 1


def test_an_ascii_stream_gets_ascii():
    done = capacity("estimate", "--params", "7e9", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b"OK " in done.stdout


def test_width_follows_columns():
    widths = {
        columns: max(
            len(line) for line in capacity("estimate", "--params", "7e9", COLUMNS=columns).stdout.decode().splitlines()
        )
        for columns in ("50", "80", "120", "100000", "wide")
    }
    assert widths["50"] <= 50 < widths["80"] <= 80 < widths["120"] <= 120
    assert widths["100000"] == widths["120"]
    assert widths["wide"] == widths["80"]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals")
@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_only_on_a_terminal_that_wants_them(variables, coloured):
    ours, theirs = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {
        "TERM": "xterm",
        **variables,
    }
    done = subprocess.Popen([sys.executable, "-m", "capacity", "devices", "h100"], stdout=theirs, env=environment)
    os.close(theirs)
    out = b""
    try:
        while chunk := os.read(ours, 65536):
            out += chunk
    except OSError:
        pass  # Linux says so when the other end has closed
    os.close(ours)
    assert done.wait(timeout=60) == 0
    assert (b"\x1b[" in out) is coloured
    assert b"\x1b[" not in capacity("devices", "h100").stdout


@pytest.mark.parametrize(
    "arguments", [["--version"], ["devices", "h100-sxm"], ["models", "gpt2"], ["estimate", "--params", "7e9"]]
)
def test_a_command_imports_only_what_it_needs(arguments):
    code = (
        "import sys; from capacity.cli import main; status = main(sys.argv[1:]);"
        "print(*sorted(sys.modules), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, check=True, timeout=60, text=True
    )
    loaded = set(done.stderr.split())
    assert not loaded & set(HEAVY)
    if arguments[0] in ("--version", "estimate"):
        assert not loaded & set(AVOIDABLE)
    others = {"estimate", "devices", "models"} - {arguments[0]}
    assert not loaded & {f"capacity.cli.{name}" for name in others}


def test_the_bare_command_explains_itself(capsys):
    assert main([]) == 0
    overview = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == overview
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("capacity 0.")


def test_a_table_says_which_columns_had_no_room(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    assert main(["devices", "h100"]) == 0
    text = capsys.readouterr().out
    assert "no room for power, price, year, vendor" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 50
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["devices", "h100"]) == 0
    assert "no room" not in capsys.readouterr().out
