# ruff: noqa: INP001 - a script, not a package
"""Write docs/exactness.md: `python docs/generate_exactness.py > docs/exactness.md` (a few minutes; needs torch and transformers).

The contract tests are run and listened to: each row of the table is a comparison a test made and passed, with the
numbers both sides gave. The table of presets needs neither library.
"""

from __future__ import annotations

import contextlib
import csv
import sys
from pathlib import Path
from typing import Any

from capacity.catalogue.models import load_preset
from capacity.importers.huggingface import MODULES

ROOT = Path(__file__).parents[1]
CONTRACT = ROOT / "tests" / "contract"
SUITES = ("test_exact_parameters_and_flops.py", "test_exact_hybrids.py", "test_exact_encoders_and_older.py")
# What the tests call the two sides of a comparison.
THEIRS, OURS = ("published", "counted"), ("predicted", "told")
# Fields of a configuration that say nothing about its architecture.
DULL = ("torch_dtype", "dtype", "transformers_version", "_name_or_path", "architectures", "id2label", "label2id")
FEWEST_SHOWN = 3

HEAD = """# Exactness

Made by `python docs/generate_exactness.py > docs/exactness.md`, which runs the contract tests and writes down what they
compared. Every row is a test that passes: *parameters* and *forward FLOPs* are what `capacity` counts **and** what the
published class holds and runs, equal to the last parameter and the last FLOP. Ours come from the importer and the op
table (`capacity/importers`, `capacity/estimators/lowering.py`); theirs from the class of transformers {transformers}, built on
torch {torch}'s `meta` device (no memory, no weights): `sum(p.numel() for p in model.parameters())`, and one forward pass
under `torch.utils.flop_counter.FlopCounterMode`.

## What is counted

- **Matrix products**: 2 · m · n · k FLOPs, a multiplication and an addition counted apart. Biases, norms, activation
  functions, softmax, rotary embeddings and other element-wise work count nothing on either side.
- **Attention**: the *full square* of queries × keys, scores and values, for every head. A causal mask is not subtracted,
  and neither is a sliding window nor a sparse selection *in this comparison*, because the class on `meta` multiplies
  everything and masks afterwards. (Times are another matter: there `capacity` counts the keys a query can see, and MFU is
  stated with windows subtracted and causal masks not.)
- **Compressed attention** (DeepSeek V4): the keys that are stored after folding, as the published code multiplies them.
- **Mixtures of experts**: each token visits its routed experts once. Where a class can only multiply every token by
  every expert, the row makes all experts active, so both sides do the same work.
- **Recurrences** (Mamba-2, gated delta rule, Kimi delta attention, lightning attention): the matrix products of the
  chunked form that transformers runs in plain PyTorch, the padding of the last chunk included. Triangular solves, decays and
  element-wise scans count nothing, as in torch; Mamba-1 and RWKV therefore count their projections and convolutions only.
- **Convolutions**: 2 FLOPs for each weight a result touches. Embedding look-ups count nothing.
- Fused attention kernels on a CPU are counted as nothing by torch, so the classes run on `meta`, or with unfused attention.

What the table does not show: that a chip reaches any share of these FLOPs. [accuracy.md](accuracy.md) has that.
"""


class Listener:
    """A pytest plugin that notes what each test was told by either side."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.tests = 0
        self._row: dict[str, Any] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Put ears on the functions the tests compare with, wherever they were imported to."""
        import exactness

        for module in {item.module for item in items} | {exactness}:
            for name in (*THEIRS, *OURS):
                if hasattr(module, name):
                    setattr(module, name, self._heard(getattr(module, name), "theirs" if name in THEIRS else "ours"))

    def _heard(self, function: Any, side: str) -> Any:
        if getattr(function, "heard", False):
            return function

        def listening(config: Any, *args: Any, **kwargs: Any) -> Any:
            result = function(config, *args, **kwargs)
            pair = result if isinstance(result, tuple) else (result.parameters, result.forward_flop)
            self._row[side] = pair
            if side == "theirs":
                self._row |= {"config": config, "class": _class_of(config, kwargs)}
            return result

        listening.heard = True  # type: ignore[attr-defined]
        return listening

    def pytest_runtest_setup(self) -> None:
        """Forget the test before."""
        self._row = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the row of a test that passed and compared both sides."""
        if report.when != "call":
            return
        if not report.passed:
            raise SystemExit(f"{report.nodeid} does not pass: no table is written")
        self.tests += 1
        if {"ours", "theirs"} <= self._row.keys():
            if self._row["ours"] != self._row["theirs"]:
                raise SystemExit(f"{report.nodeid}: {self._row['ours']} is not {self._row['theirs']}")
            self.rows.append(self._row)


def _class_of(config: Any, options: dict[str, Any]) -> str:
    if options.get("build") is not None:
        return str(options["build"].__name__)
    if "auto" not in options and config.architectures:
        return str(config.architectures[0])
    import transformers

    auto = options.get("auto", transformers.AutoModelForCausalLM)
    return str(auto._model_mapping[type(config)].__name__)


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif key not in DULL:
            flat[f"{prefix}{key}"] = value
    return flat


def _differences(row: dict[str, Any], first: dict[str, Any]) -> str:
    here, there = _flat(row["config"].to_dict()), _flat(first["config"].to_dict())
    changed = [key for key in here if not key.startswith("_") and here[key] != there.get(key)]
    shown = [f"`{key}={here[key]}`" for key in changed if len(str(here[key])) < 30][:FEWEST_SHOWN]
    more = len(changed) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if shown and more > 0 else f"{more} long fields" if more > 0 else "")


def compared() -> tuple[list[dict[str, Any]], int]:
    """Run the contract tests; the comparisons they made and how many tests ran."""
    import pytest

    listener = Listener()
    sys.path.insert(0, str(CONTRACT))
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    suites = [str(CONTRACT / name) for name in SUITES]
    with contextlib.redirect_stdout(sys.stderr):
        status = pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *quiet, *suites], plugins=[listener])
    if status != 0:
        raise SystemExit("the contract tests do not pass: no table is written")
    return listener.rows, listener.tests


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each comparison, by model type."""
    lines = [
        "| model type | class | parameters | forward FLOPs | differs from the row above by |",
        "| --- | --- | --: | --: | --- |",
    ]
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["config"].model_type, row["class"])):
        kind = row["config"].model_type
        parameters, flop = row["ours"]
        known = first.setdefault((kind, row["class"]), row)
        note = "" if known is row else _differences(row, known)
        lines.append(f"| {kind} | {row['class']} | {parameters:,.0f} | {flop:,.0f} | {note} |")
    return "\n".join(lines) + "\n"


def presets() -> str:
    """Totals of the presets beside what their publishers say; needs neither torch nor transformers."""
    lines = [
        "| preset | model type | parameters | active | published | off by |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    with (ROOT / "tests" / "golden" / "model_parameters.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            preset = load_preset(row["id"])
            total, active = float(row["parameters"]), float(row["active_parameters"])
            stated = preset.published_params
            said = "–" if stated is None else f"{stated:,.0f}"
            off = "" if stated is None else "exact" if stated == total else f"{100.0 * (total / stated - 1.0):+.2f} %"
            lines.append(
                f"| {row['id']} | {preset.config['model_type']} | {total:,.0f} | "
                f"{'' if active == total else f'{active:,.0f}'} | {said} | {off} |"
            )
    return "\n".join(lines) + "\n"


PRESETS = """## Presets

What `capacity models` counts for each preset (`tests/golden/model_parameters.csv`, held by a test) beside the total its
publisher states, where one is stated. Most differences are the publisher's rounding (`405B`); Gopher and Chinchilla have no
published code, and the projection of their relative positions, which no token passes, is left out. *Active* leaves out the experts a token does not
visit. For two presets of each model type `tests/contract/test_presets_exact.py` also builds
the class of transformers from the same facts and finds the same number.
"""


def page() -> str:
    """The whole page."""
    import torch
    import transformers

    rows, tests = compared()
    kinds = {row["config"].model_type for row in rows}
    others = sorted(set(MODULES) - kinds)
    told = (
        f"## {len(rows)} configurations of {len(kinds)} model types\n\n"
        f"From {tests} contract tests; the others compare parameters alone, vision towers, windows and published totals.\n"
        "Model types that have no row of their own, because they wrap one that has, have no class in this transformers, or\n"
        f"have one that does not run on `meta`: {', '.join(f'`{kind}`' for kind in others)}.\n"
    )
    head = HEAD.format(transformers=transformers.__version__, torch=torch.__version__.partition("+")[0])
    return "\n".join([head, told, table(rows), PRESETS, presets()])


if __name__ == "__main__":
    sys.stdout.write(page())
