"""What the documents promise is there: commands, options, links, sources, numbers and output."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from capacity.cli import COMMANDS, command
from capacity.cli.parsing import Parser
from capacity.importers.huggingface import MODULES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# `--name` in text that is not `capacity`'s own: of the tools that documents tell how to use.
OTHERS = {
    "--saved-model",
    "--opset",
    "--upgrade",
    "--quiet",
    "--strict",
    "--benchmark-only",
    "--benchmark-save",
    "--benchmark-compare",
    "--benchmark-timer",
}
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def script(name):
    return runpy.run_path(str(DOCS / name))


def options():
    """Every option of every command."""
    text = "\n".join(Parser(command(name).COMMAND).format_help() for name in COMMANDS)
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text)) | {"--help", "--version"}


def anchors(page):
    """Where links into a page may lead: its headings as they are spelt on the web, and its own marks."""
    text = page.read_text(encoding="utf-8")
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    spelt = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
    return spelt | set(re.findall(r'<a id="([^"]+)">', text))


@pages
def test_relative_links_resolve(page):
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


@pages
def test_options_exist(page):
    known = options() | OTHERS
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.read_text(encoding="utf-8")):
        assert option in known, f"{page.name} mentions {option}"


@pages
def test_commands_exist(page):
    """A command named in code is one of ours, or one that the page says is not there yet."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?:`|\$ |bin/)capacity ([a-z]+)", text):
        assert name in COMMANDS or name in ("plan", "sweep", "bench", "report", "validate"), f"{page.name}: {name}"


def test_planned_commands_are_not_promised_as_done():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "CHANGELOG.md")
    for name in set(re.findall(r"`capacity (plan|sweep|bench|report|validate)\b", text)) - set(COMMANDS):
        assert f"`capacity {name}` will" in text


@pages
def test_commands_that_are_shown_are_read(page):
    """Every `capacity estimate ...` line in a block of code is one the parser takes; `...` stands for anything."""
    for kind, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind not in ("", "sh", "console"):
            continue
        for line in re.findall(r"^(?:\$ )?capacity (.+)$", block, re.MULTILINE):
            words = shlex.split(line.partition(" | ")[0], comments=True)
            if words[0] in COMMANDS and "[options]" not in words:
                module = command(words[0])
                module.COMMAND.read(words[1:])


@pages
def test_nothing_of_one_machine_is_told(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"/(?:home|tmp|Users|root|work)/", text)


def test_python_of_the_readme_runs(capsys):
    ran = 0
    for kind, block in FENCE.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(block, "README.md", "exec"), {})
            ran += 1
    assert ran
    assert "fits" in capsys.readouterr().out


def words(text):
    """Words that name something: units, numbers and names of devices apart."""
    return set(re.findall(r"(?<![\w.])[A-Za-z][a-z]{4,}(?![\w.])", text))


TOUR = script("generate_tour.py")
SHOWN = [block for page in TOUR["PAGES"] for block in TOUR["blocks"](page.read_text(encoding="utf-8"))]


def test_the_tour_shows_something():
    assert len(SHOWN) >= 4


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block["command"])
def test_output_in_the_readme_is_current(block):
    """Numbers may drift with the laws; what is said, and in which order it starts, may not."""
    now = TOUR["run"](block["command"])
    told = "run: python docs/generate_tour.py"
    assert words(block["output"]) <= words(now), told
    numberless = [re.sub(r"[\d.,]+", "0", text.splitlines()[0]) for text in (block["output"], now)]
    assert numberless[0] == numberless[1], told
    assert ("✔" in block["output"]) == ("✔" in now), told


def test_formulas_are_up_to_date():
    pytest.importorskip("sympy")
    page = script("generate_formulas.py")["page"]()
    assert page == (DOCS / "formulas.md").read_text(encoding="utf-8"), (
        "run: python docs/generate_formulas.py > docs/formulas.md"
    )


def test_every_source_is_in_the_bibliography():
    listed = anchors(DOCS / "bibliography.md")
    cited = set()
    for path in [*(ROOT / "capacity").rglob("*.py"), *(ROOT / "capacity" / "laws").rglob("*.toml")]:
        cited |= set(re.findall(r"\b[a-z]{2,}(?:19|20)\d\d\b", path.read_text(encoding="utf-8")))
    assert cited <= listed, f"not in docs/bibliography.md: {sorted(cited - listed)}"


def test_presets_of_the_exactness_table_are_up_to_date():
    page = (DOCS / "exactness.md").read_text(encoding="utf-8")
    assert script("generate_exactness.py")["presets"]() in page, (
        "run: python docs/generate_exactness.py > docs/exactness.md"
    )


def test_every_model_type_is_in_the_exactness_table():
    page = (DOCS / "exactness.md").read_text(encoding="utf-8")
    for kind in MODULES:
        assert f"\n| {kind} |" in page or f"`{kind}`" in page, (
            f"{kind} is missing; run: python docs/generate_exactness.py > docs/exactness.md"
        )


def test_intervals_told_are_those_used():
    """The factors that the pages on accuracy name are those of the fitted files."""
    from capacity.toml_file import read_toml

    table = read_toml(str(ROOT / "capacity" / "laws" / "fitted" / "composed.toml"))
    page = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("accuracy.md", "accuracy-training.md"))
    steps = read_toml(str(ROOT / "capacity" / "laws" / "fitted" / "stacks.toml"))["interval"]
    for name, row in steps.items():
        assert f"{row['low']:.2f} to {row['high']:.2f}" in page, name
    for name in ("training_memory", "ttft", "power"):
        assert f"{table[name]['low']:.2f} to {table[name]['high']:g}" in page, name


def test_accuracy_of_serving_is_up_to_date():
    """The page is made from the curated runs and the kept scores; numbers may move in the last digit between machines."""
    page = (DOCS / "accuracy-serving.md").read_text(encoding="utf-8")
    made = subprocess.run(
        [sys.executable, str(DOCS / "generate_accuracy_serving.py")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    assert made == page, "run: python docs/generate_accuracy_serving.py > docs/accuracy-serving.md"
