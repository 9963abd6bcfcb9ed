"""Writes capacity/catalogue/networks.json.xz: the op tables of published vision networks, by name.

    python bench/generate_networks.py [NAMES FILE]

Needs torch, torchvision and timm. Each network is traced on `meta` to train on PRIME images of the size its
published weights are for, or of the size a line "NAME SIZE" of the file gives; what is a multiple of PRIME grows with
the batch. Nothing is downloaded. Takes a second a table; what the file holds already is kept, so delete it to begin anew.
"""

import json
import lzma
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import torchvision_ops  # noqa: F401, I001 - before timm, which imports torchvision
import timm
import torch
import torchvision
from timm.models import _registry

from capacity.catalogue.networks import NUMBERS
from capacity.errors import CapacityError
from capacity.importers.graphs import module, tracer

PRIME = 61
HOME = Path(__file__).parents[1] / "capacity" / "catalogue" / "networks.json.xz"
MOST_S = 90
# Networks that take no picture, and those made for timm's own tests.
SKIPPED = ("test_", "naflexvit", "deepseek", "gemma", "qwen")


class Counting(tracer.Tracer):
    """Counts of a tensor that has no batch are left out beside one that has."""

    @staticmethod
    def moved(tensors):
        sizes = [one.numel() for one in tensors]
        return float(sum(size for size in sizes if size % PRIME == 0) or sum(sizes))


tracer.Tracer = Counting


def size_of(name):
    """The side of images a timm network's published weights are trained on."""
    usual = timm.get_pretrained_cfg(name)
    return usual.input_size[-1] if usual else 224


def build(name, side):
    """A network that takes images of this side."""
    if name.startswith("tv."):
        return lambda: torchvision.models.get_model(name[3:], weights=None)
    usual = timm.get_pretrained_cfg(name)

    def make():
        if usual is None or usual.input_size[-1] == side:
            return timm.create_model(name)
        try:
            return timm.create_model(name, img_size=side)
        except TypeError:
            return timm.create_model(name)

    return make


def kept():
    """Rows and networks of the file that is there: a run goes on where the last one stopped."""
    if not HOME.is_file():
        return {}, {}
    document = json.loads(lzma.decompress(HOME.read_bytes()))
    rows = [tuple(row) for row in zip(*document["columns"], strict=True)]
    networks = {
        name: (*facts, [(rows[at], count) for at, count in zip(table, counts, strict=True)])
        for name, (*facts, table, counts) in document["networks"].items()
    }
    return dict.fromkeys(rows, 0), networks


def late(*_):
    """A network takes longer than all others together."""
    raise TimeoutError(f"took more than {MOST_S} s")


def main(wanted):
    rows, networks, failed = *kept(), {}
    begun = time.time()
    names = dict(wanted)
    names |= {
        f"tv.{name}": 299 if "inception" in name else 224 for name in torchvision.models.list_models(torchvision.models)
    }
    names |= {name: size_of(name) for name in timm.list_models() if name not in names and not name.startswith(SKIPPED)}
    signal.signal(signal.SIGALRM, late)
    for name, side in names.items():
        if name in networks:
            continue
        signal.alarm(MOST_S)
        try:
            graph = module.trace(build(name, side), [module.InputSpec((PRIME, 3, side, side))], train=True, name=name)
        except (CapacityError, ValueError, AssertionError, TypeError, TimeoutError) as error:
            failed[name] = str(error)[:160]
            continue
        table = []
        for op in graph.ops:
            values = [getattr(op, field) for field in NUMBERS]
            linear = [value % PRIME == 0 and value > 0 for value in values]
            row = (
                op.kind,
                op.form,
                op.phase,
                int(op.causal),
                sum(1 << at for at, yes in enumerate(linear) if yes),
                *(int(value // PRIME) if yes else int(value) for value, yes in zip(values, linear, strict=True)),
            )
            table.append((row, int(op.count)))
            rows[row] = 0
        facts = (
            graph.parameters,
            graph.tensors,
            graph.saved_elements / PRIME,
            graph.saved_bytes / PRIME,
            graph.peak_elements / PRIME,
            graph.calls,
        )
        networks[name] = (side, *(int(fact) for fact in facts), table)
        if len(networks) % 25 == 0:
            print(len(networks), len(rows), len(failed), round(time.time() - begun), flush=True)
            write(list(rows), networks)
    write(list(rows), networks)
    print(len(networks), "tables", len(failed), "failed", failed)


def write(rows, networks):
    """Columns of sorted rows pack to a third of what rows would take."""
    rows.sort()
    at = {row: number for number, row in enumerate(rows)}
    document = {
        "source": f"timm {timm.__version__}, torchvision {torchvision.__version__}, traced by torch {torch.__version__.split('+')[0]}",
        "aliases": {old: new.partition(".")[0] for old, new in _registry._deprecated_models.items()},
        "fields": ("kind", "form", "phase", "causal", "linear", *NUMBERS),
        "columns": list(zip(*rows, strict=True)),
        "networks": {
            name: [*facts[:-1], [at[row] for row, _ in facts[-1]], [count for _, count in facts[-1]]]
            for name, facts in sorted(networks.items())
        },
    }
    HOME.write_bytes(lzma.compress(json.dumps(document, separators=(",", ":")).encode(), preset=9))


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text().split("\n") if len(sys.argv) > 1 else []
    main([(line.split()[0], int(line.split()[1])) for line in lines if line.strip()])
