"""This machine's storage, ciphers and preparation: laws fitted to what `capacity bench` measured, and what the estimate reads.

Every second size of a family is kept from the fit; the errors there are the laws' spread.
"""

from __future__ import annotations

import json
import os

import numpy as np
from scipy.optimize import nnls

from capacity.catalogue.own import THIS_MACHINE, own_folder, platform_laws_path
from capacity.errors import InputError
from capacity.laws.platform import PlatformLaw, to_document
from capacity.measurement.amounts import KINDS, Amount, families
from capacity.measurement.measured import Measured
from capacity.record import replace
from capacity.whole_file import write_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# Work a core does, by the name the estimate knows it by.
_HOST_WORKS = {
    "cipher/aes-256-gcm-reused": "aes-256-gcm",
    "cipher/aes-128-gcm-reused": "aes-128-gcm",
    "cipher/chacha20-poly1305-reused": "chacha20-poly1305",
    "hash/sha-256": "sha-256",
    "hash/blake2b": "blake2b",
    "hash/blake3": "blake3",
    "signature/ed25519-sign": "ed25519-sign",
    "tls/stream": "tls",
    "tls/handshake": "tls-handshake",
    "text/tokenise": "tokenise",
    "text/filter": "filter",
    "text/minhash": "minhash",
    "picture/decode": "decode",
    "picture/decode-resize": "decode-resize",
    "sound/log-mel": "log-mel",
    "token-map/random-warm": "token-copy",
}
_FACTS = ("cpu", "system", "python", "seen", "memory_bytes")
# A signature is a call; no byte of it costs. Also more bytes than any work here moves.
_NO_BYTES = 1e12
# Sizes it takes to tell where a byte begins to cost otherwise, and by how much that must foretell better.
FEWEST_TO_BEND, LEAST_GAIN = 4, 0.01


def calibrate(path: str) -> tuple[dict[str, PlatformLaw], dict[str, Any]]:
    """Laws by family, and their errors at sizes that were not fitted.

    Raises InputError where the store holds nothing of the kind.
    """
    measured = Measured(path)
    found = families(measured)
    if not found:
        raise InputError(
            f"{path}: holds no storage, security or preparation: run `capacity bench {' '.join(KINDS)} --to {path}`"
        )
    laws = {family: fit([one for one in rows if not one.kept_back]) for family, rows in found.items()}
    errors = {
        one.case: float(np.log(one.seconds / laws[family].seconds(one.moved_bytes)))
        for family, rows in found.items()
        for one in rows
        if one.kept_back
    }
    for kind in KINDS:
        cases = {one.case for rows in found.values() for one in rows if one.kind == kind}
        off = [value for name, value in errors.items() if name in cases]
        if off:
            low, mid, high = (float(value) for value in np.quantile(off, (0.05, 0.5, 0.95)))
            for family, rows in found.items():
                if rows[0].kind == kind:
                    laws[family] = replace(laws[family], spread=(low, mid, high))
    environment = {name: measured.environment.get(name) for name in _FACTS}
    return laws, {
        "families": len(laws),
        "fitted": sum(not one.kept_back for rows in found.values() for one in rows),
        "errors": {name: float(np.exp(-value) - 1.0) for name, value in errors.items()},
        "environment": environment,
    }


def fit(rows: Sequence[Amount]) -> PlatformLaw:
    """The law of a family by relative error, no pace negative; a lone size is all call where it moves nothing, else all bytes.

    Where a byte begins to cost otherwise is tried at powers of two, and taken where it foretells the inner sizes better that
    each fit leaves out in turn, by LEAST_GAIN at least.
    """
    if len(rows) == 1:
        moved, seconds = rows[0].moved_bytes, rows[0].seconds
        return PlatformLaw(0.0 if moved else seconds, seconds / moved if moved else 0.0, 0.0, _NO_BYTES)
    best, least = _fit(rows, _NO_BYTES), float("inf")
    if len(rows) >= FEWEST_TO_BEND:
        sizes = [one.moved_bytes for one in rows]
        powers = range(int(np.log2(max(sizes[0], 1.0))), int(np.log2(sizes[-1])) + 1)
        least = _foretold(rows, _NO_BYTES)
        for near in (2.0**power for power in powers):
            if sum(size <= near for size in sizes) < 2 or sizes[-1] <= near:
                continue
            off = _foretold(rows, near)
            if off < least - LEAST_GAIN:
                best, least = _fit(rows, near), off
    return best


def _fit(rows: Sequence[Amount], near: float) -> PlatformLaw:
    seconds = np.array([one.seconds for one in rows])
    moved = np.array([one.moved_bytes for one in rows])
    columns = [np.ones_like(moved), np.minimum(moved, near)]
    if (moved > near).any():
        columns.append(np.maximum(moved - near, 0.0))
    matrix = np.stack(columns, axis=1)
    scale = np.maximum(matrix.max(axis=0), 1e-300)
    found, _ = nnls(matrix / scale / seconds[:, None], np.ones(len(rows)))
    call, each, *far = (float(value) for value in found / scale)
    return PlatformLaw(call, each, far[0] - each if far else 0.0, near)


def _foretold(rows: Sequence[Amount], near: float) -> float:
    """Error at inner sizes that a fit leaves out one by one, and of the fit to all, as means of |ln|."""
    left_out = [
        abs(
            np.log(
                _fit([*rows[:place], *rows[place + 1 :]], near).seconds(rows[place].moved_bytes) / rows[place].seconds
            )
        )
        for place in range(1, len(rows) - 1)
    ]
    whole = _fit(rows, near)
    kept = [abs(np.log(whole.seconds(one.moved_bytes) / one.seconds)) for one in rows]
    return float(np.mean(left_out) + np.mean(kept))


def write_platform(laws: Mapping[str, PlatformLaw], told: Mapping[str, Any]) -> list[str]:
    """Write the laws, this machine's core and its disk as entries of the user's catalogue; returns their paths."""
    folder = own_folder()
    environment = told["environment"]
    files = {platform_laws_path(): json.dumps(to_document(laws, environment), indent=1) + "\n"}
    works = {word: laws[family] for family, word in _HOST_WORKS.items() if family in laws}
    if works:
        fresh = {word: laws.get(f"cipher/{word}-fresh") for word in works}
        files[os.path.join(folder, "hosts", f"{THIS_MACHINE}.toml")] = host_file(works, fresh, environment)
    if {"disk/read-cold", "disk/write-fsync"} <= set(laws):
        files[os.path.join(folder, "storage", f"{THIS_MACHINE}.toml")] = storage_file(laws, environment)
    for target, text in files.items():
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            write_whole(target, text)
        except OSError as error:
            raise InputError(
                f"{target} cannot be written ({error.strerror or error}); set CAPACITY_HOME to a folder"
            ) from None
    return list(files)


def host_file(
    works: Mapping[str, PlatformLaw], fresh: Mapping[str, PlatformLaw | None], environment: Mapping[str, Any],
    key: str = THIS_MACHINE,
) -> str:  # fmt: skip
    """What one core does, in the catalogue's form."""
    lines = [f'id = "{key}"', f"name = {json.dumps('a core of ' + str(environment.get('cpu') or 'this machine'))}"]
    for word, law in sorted(works.items()):
        pace = min(law.far_bytes_per_s, _NO_BYTES)
        lines += ["", f"[work.{word}]", _number("call", max(law.call_s, 1e-9), "s"), _number("pace", pace, "byte/s")]
        other = fresh.get(word)
        if other is not None and other.far_bytes_per_s < pace:
            lines.append(_number("fresh", 1.0 / (1.0 / other.far_bytes_per_s - 1.0 / pace), "byte/s"))
    return "\n".join([*lines, "", *_source(environment)]) + "\n"


def storage_file(laws: Mapping[str, PlatformLaw], environment: Mapping[str, Any]) -> str:
    """The disk, in the catalogue's form: what cold reads and synced writes of large files reach."""
    read, write = laws["disk/read-cold"], laws["disk/write-fsync"]
    lines = [
        f'id = "{THIS_MACHINE}"', 'name = "the disk of this machine"', 'kind = "drive"', 'unit = "disk"', 'shared = "no"', "",
        _number("read", read.far_bytes_per_s, "byte/s"), _number("write", write.far_bytes_per_s, "byte/s"),
        _number("latency", max(write.call_s, 1e-9), "s"),
    ]  # fmt: skip
    blocks = laws.get("disk-random/cold-1")
    if blocks is not None:
        lines.append(_number("read_operations", READS / max(blocks.seconds(READS * BLOCK), 1e-9), "1/s"))
    return "\n".join([*lines, "", *_source(environment)]) + "\n"


# Reads in a run of `disk-random`, and their size.
READS, BLOCK = 64, 4096


def _number(key: str, value: float, unit: str) -> str:
    return f'{key} = {{ value = {value:.4g}, unit = "{unit}", source = "bench" }}'


def _source(environment: Mapping[str, Any]) -> list[str]:
    seen = str(environment.get("seen") or "2026")[:10]
    return [
        "[sources.bench]",
        'title = "capacity bench storage security preparation, one thread"',
        f'date = "{seen}"',
        "checked = true",
    ]
