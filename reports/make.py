"""Make every report of this folder again, and the index: `python reports/make.py [NAME ...]`.

Only commands of `capacity` make them; each is in the index, as it was run here.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).parent
# name, what it shows, the command up to `capacity report`, piped into it, and the words of `capacity report`.
REPORTS = (
    ("training", "Step time of published training runs", "", "--validate training"),
    ("memory", "Peak memory of published training runs", "", "--validate memory"),
    ("serving", "Latency of loaded servers as published", "", "--validate serving"),
    ("inference", "Speed and memory of inference engines as published", "", "--validate inference"),
    ("energy", "Measured energy of inference and training as published", "", "--validate energy"),
    ("vision", "Images a second of networks that are not language models as published", "", "--validate vision"),
    ("kernels", "Every kernel law against published kernel measurements", "", "--validate kernels"),
    (
        "epyc-zen4-1-thread",
        "One real machine: its kernels, and whole workloads predicted from kernels alone",
        "",
        "{0}/bench.jsonl.xz {0}/predictions.csv {0}/notes.md --title 'AMD EPYC (Zen 4), 1 thread of 2 shared cores'".format(
            "reports/epyc-zen4-1-thread"
        ),
    ),
    (
        "train-7b",
        "Worked example: train a 7B model on 64 H100",
        "plan --params 7e9 --tokens 1T --device h100-sxm --devices 64 --json",
        "- --title 'Train a 7B model on 64 H100'",
    ),
    (
        "serve-70b",
        "Worked example: serve a 70B model, 20 requests a second under promises on latency, on H100 in fours",
        "",
        """--model llama-3.1-70b --mode serve --device h100-sxm --devices 4 --request-rate 20 --ttft-slo 2s --tpot-slo 50ms
        --title 'Serve Llama 3.1 70B at 20 requests a second'""",
    ),
    (
        "edge-8b",
        "Worked example: fit an 8B model on a Jetson Orin Nano by compression",
        "compress --model llama-3.1-8b --device jetson-orin-nano-super-8gb --memory 7GB --tokens-per-s 8 --json",
        "- --title 'Llama 3.1 8B on a Jetson Orin Nano'",
    ),
)
FORMATS = ("html", "pdf")

HEAD = """# Reports

This project's own evidence: every kind of prediction against published runs, one real machine, and three worked examples, each as a page
(open it in a browser) and as a document. Made by `python reports/make.py`, which runs nothing but the commands below; do not edit.
Each report carries its inputs: `capacity report --rerun FILE` makes it again and says what changed. [What a report holds](../docs/reports.md).

| report | shows | made by |
| --- | --- | --- |
"""


def place(name: str, form: str) -> Path:
    """A report's file; those with data beside them have a folder."""
    folder = HERE / name
    return folder / f"report.{form}" if folder.is_dir() else HERE / f"{name}.{form}"


def shown(name: str) -> str:
    return ", ".join(f"[{form}]({place(name, form).relative_to(HERE)})" for form in FORMATS)


def make(name: str, before: str, words: str) -> None:
    """Run the commands of one report."""
    from capacity.cli import main

    piped = io.StringIO()
    if before:
        with contextlib.redirect_stdout(piped):
            _run(main, shlex.split(before))
    for form in FORMATS:
        sys.stdin = io.StringIO(piped.getvalue())
        _run(main, ["report", *shlex.split(words), "--output", str(place(name, form).relative_to(HERE.parent))])


def _run(main, arguments: list[str]) -> None:
    if status := main(arguments):
        raise SystemExit(f"capacity {shlex.join(arguments)}: exit status {status}")


def index() -> str:
    rows = []
    for name, shows, before, words in REPORTS:
        command = f"capacity {before} \\| " if before else ""
        said = " ".join(words.split())
        rows.append(
            f"| {name}: {shown(name)} | {shows} | `{command}capacity report {said} --output {place(name, 'html').relative_to(HERE.parent)}` |\n"
        )
    return HEAD + "".join(rows)


if __name__ == "__main__":
    os.chdir(HERE.parent)
    for one, _, before, words in REPORTS:
        if len(sys.argv) < 2 or one in sys.argv[1:]:
            make(one, before, words)
    (HERE / "README.md").write_text(index(), encoding="utf-8")
