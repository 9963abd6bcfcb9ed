# ruff: noqa: INP001 - a script, not a package
"""Write docs/formulas.md from the running code: `python docs/generate_formulas.py > docs/formulas.md` (needs sympy)."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from itertools import groupby

import capacity.formulas
import capacity.laws
from capacity.derivation import expression
from capacity.formula import Formula, registry

HEAD = """# Formulas

Made by `python docs/generate_formulas.py > docs/formulas.md`; a test holds it up to date. The expressions are printed from
the running code: each function is called on SymPy symbols, so the text cannot drift from what is computed. A parameter's
unit is in its name, in base SI ([CONTRIBUTING.md](../CONTRIBUTING.md)); a bare name is a count or a ratio. Tests prove
every unit, compare floats with columns, and evaluate the text printed here against the function.

`capacity estimate ... --explain train.step_time` prints the same formulas with the numbers of a case put in.
"""
# Paragraphs of a docstring that say what a formula covers.
TOLD = re.compile(r"^(Counts|Ignores|Valid for|Counts and ignores):", re.MULTILINE)
KEY = re.compile(r"[a-z]+(?:19|20)\d\d")


def formulas() -> list[Formula]:
    """Every formula of the package, module by module, in the order of their source."""
    for package in (capacity.formulas, capacity.laws):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    ours = [entry for entry in registry().values() if entry.function.__module__.startswith("capacity.")]
    return sorted(ours, key=lambda entry: (entry.function.__module__, entry.function.__code__.co_firstlineno))


def symbol(text: str) -> str:
    """A symbol as TeX sets it: longer subscripts upright and whole."""
    return "$" + re.sub(r"_(\w{2,})", r"_{\\mathrm{\1}}", text) + "$"


def cited(text: str) -> str:
    """A source with its keys linked to the bibliography."""
    return KEY.sub(lambda match: f"[{match[0]}](bibliography.md#{match[0]})", text)


def derived(entry: Formula) -> str:
    """The docstring as Markdown."""
    text = inspect.cleandoc(entry.derivation)
    return TOLD.sub(lambda match: f"\n*{match[1]}*:", text).replace("\n\n\n", "\n\n")


def section(entry: Formula) -> str:
    """One formula."""
    body, _, parts = expression(entry).partition(" where ")
    code = [f"{entry.name} = {body}"]
    level, start = 0, 0
    for i, letter in enumerate(parts + ","):
        level += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and level == 0:
            if parts:
                code.append(f"    {parts[start:i].strip()}")
            start = i + 1
    facts = [symbol(entry.symbol), "as its terms" if entry.unit == "same" else f"`{entry.unit}`"]
    defaults = [f"{name} = {value:g}" for name, value in entry.defaults.items()]
    if defaults:
        facts.append(f"unless given, {', '.join(f'`{one}`' for one in defaults)}")
    if entry.cite:
        facts.append(f"source: {cited(entry.cite)}")
    return f"### {entry.name}\n\n{' · '.join(facts)}\n\n```\n{chr(10).join(code)}\n```\n\n{derived(entry)}\n"


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for module, entries in groupby(formulas(), key=lambda entry: entry.function.__module__):
        path = module.replace(".", "/") + ".py"
        about = (sys.modules[module].__doc__ or "").strip().partition("\n")[0]
        parts += [f"## {module.removeprefix('capacity.')}\n\n{about} [{path}](../{path})\n"]
        parts += [section(entry) for entry in entries]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
