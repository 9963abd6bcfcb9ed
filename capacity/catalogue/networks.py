"""Op tables of published vision networks by name, kept in one file that bench/generate_networks.py writes."""

from __future__ import annotations

import os
import re

from capacity.errors import UnknownNameError
from capacity.record import Record
from capacity.spec.graph import Graph
from capacity.spec.op import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = os.path.join(os.path.dirname(__file__), "networks.json.xz")
_known: dict[str, Any] = {}
# What other publishers call networks of timm and torchvision, and what trained weights are called beside their network.
_ALIASES = {
    "resnet50v1.5": "resnet50", "resnet-50": "resnet50", "resnext101-32x4d": "resnext101_32x4d", "se-resnext101-32x4d": "seresnext101_32x4d",
    "efficientnet-widese-b0": "efficientnet_b0", "efficientnet-widese-b4": "efficientnet_b4", "vit-b/16": "vit_base_patch16_224",
    "vit-l/16": "vit_large_patch16_224", "vit-b/32": "vit_base_patch32_224", "vit-base-patch16-224-in21k": "vit_base_patch16_224",
    "swin-base": "swin_base_patch4_window7_224", "densenet121d": "densenet121", "densenet264": "densenet201",
}  # fmt: skip
_ENDINGS = re.compile(
    r"(_(in22ft1k|in21ft1k|in22k|in21k|ns|ap|miil|dino|sam|bitm|hnf|hnfd|iabn|gn|evob|\d{2,3}))$|\.[\w.]+$|[ -](fine-tune|pre-train)$"
)


class Table(Record):
    """A network on one image: columns of its distinct ops, each op's count, and the facts of its graph.

    side: of the images it was traced on. rows: indices into `columns()`, count: applications of each.
    """

    name: str
    side: float
    parameters: float
    tensors: float
    saved_elements: float
    saved_bytes: float
    peak_elements: float
    calls: float
    rows: tuple[int, ...]
    counts: tuple[int, ...]


def columns() -> dict[str, list[Any]]:
    """All distinct ops of all networks, as columns by field."""
    document = _document()
    return dict(zip(document["fields"], document["columns"], strict=True))


def network_names() -> tuple[str, ...]:
    """Every network that has a table."""
    return tuple(_document()["networks"])


def load_table(name: str) -> Table:
    """The table of a network by the name people give it. Raises UnknownNameError."""
    document = _document()
    for spelt in _spellings(name, document["aliases"]):
        row = document["networks"].get(spelt)
        if row is not None:
            side, parameters, tensors, saved, other, peak, calls, rows, counts = row
            return Table(
                spelt,
                float(side),
                float(parameters),
                float(tensors),
                float(saved),
                float(other),
                float(peak),
                float(calls),
                tuple(rows),
                tuple(counts),
            )
    raise UnknownNameError("network", name, network_names())


def load_network(name: str, batch: float = 1.0, side: float | None = None) -> Graph:
    """The graph of a network on a batch of square images.

    A side other than the one that was traced scales positions by area; what a network pads or pools by side is not
    followed. Raises UnknownNameError.
    """
    table = load_table(name)
    all_columns = columns()
    area = 1.0 if side is None else (side / table.side) ** 2
    ops = []
    for row, count in zip(table.rows, table.counts, strict=True):
        values = {field: column[row] for field, column in all_columns.items()}
        ops.append(_op(values, float(count), batch, area))
    return Graph(
        name=table.name,
        source=_document()["source"],
        batch=float(batch),
        inputs=(f"{batch:g}x3x{side or table.side:g}x{side or table.side:g}:float32",),
        ops=tuple(ops),
        parameters=table.parameters,
        trained=table.parameters,
        tensors=table.tensors,
        saved_elements=table.saved_elements * batch * area,
        saved_bytes=table.saved_bytes * batch * area,
        peak_elements=table.peak_elements * batch * area,
        calls=table.calls,
    )


# Fields of an op that may grow with the batch or the picture, in the order the packed bits stand.
NUMBERS = (
    "m",
    "n",
    "k",
    "copies",
    "groups",
    "taps",
    "sequences",
    "queries",
    "keys",
    "heads",
    "key_size",
    "value_size",
    "elements",
)


def scales(values: dict[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Which numbers of a row grow with the batch, and which with the area of the images."""
    growing = frozenset(field for at, field in enumerate(NUMBERS) if values["linear"] >> at & 1)
    if values["kind"] == "attention":
        # Attention within windows has more windows; over the whole picture, more positions.
        return growing, frozenset(
            ("queries", "keys", "m", "elements") if values["sequences"] == 1 else ("sequences", "m", "elements")
        )
    # What is one number of an image is behind the last pooling.
    inner = {field for field in growing if values[field] > 1}
    if values["kind"] in ("gemm", "conv") and not inner & {"m", "k", "copies"}:
        inner = set()
    return growing, frozenset(inner)


def _op(values: dict[str, Any], count: float, batch: float, area: float) -> Op:
    growing, inner = scales(values)
    numbers: dict[str, Any] = {
        field: float(values[field]) * (batch if field in growing else 1.0) * (area if field in inner else 1.0)
        for field in NUMBERS
    }
    form, kind = values["form"], values["kind"]
    return Op(
        name=f"{kind} {form}".strip(),
        part=kind if kind != "elementwise" else form,
        kind=kind,
        count=count,
        form=form,
        phase=values["phase"],
        causal=bool(values["causal"]),
        kv_heads=numbers["heads"],
        **numbers,
    )


def _spellings(name: str, aliases: dict[str, str]) -> list[str]:
    text = (
        name.strip().rpartition("/")[2]
        if name.count("/") and " " not in name and "vit-" not in name.lower()
        else name.strip()
    )
    found = [text, text.lower()]
    for one in list(found):
        key = one
        while True:
            found += [
                key,
                aliases.get(key, ""),
                _ALIASES.get(key, ""),
                key.replace("-", "_"),
                f"tv.{key}",
                re.sub(r"^(tv|gluon|ssl|swsl|ig|jx)_", "", key),
            ]
            shorter = _ENDINGS.sub("", key)
            if shorter == key:
                break
            key = shorter
    return [one for one in dict.fromkeys(found) if one]


def _document() -> dict[str, Any]:
    if not _known:
        import json
        import lzma

        with lzma.open(FILE) as file:
            _known.update(json.load(file))
    return _known
