"""Laws of one machine for library calls: seconds by what a call does, each term a physical one, fitted on its kernels.

A call takes a launch, its arithmetic and its traffic, in sum: on a processor they hardly overlap. What differs from op
to op (the launch, the arithmetic of an element, a product's panels) is the op's own; what belongs to the machine (bytes
from the last cache and from memory, fresh pages, nodes recorded for backward, code that was not used last) is shared by all. So is what the
interpreter costs where it enters the library: a module, an optimizer's step, a backward pass, a phase.
"""

from __future__ import annotations

from capacity.errors import FileFormatError
from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from capacity.spec.trace import Trace, TracedOp

SCHEMA = 2
# Terms of the machine, shared by all ops.
MACHINE = "machine"
NEAR, FAR, FRESH, NODES, SWITCHES = "near_bytes", "far_bytes", "fresh_bytes", "nodes", "switches"
# Where Python enters the library.
PYTHON = ("module", "optimizer step", "backward pass", "phase")
# What a node recorded in the forward pass costs there; the rest is paid when backward runs through it.
NODE_SHARE_FORWARD = 0.4
THIN_ROWS = 4.0
FUSED_TRAFFIC = 0.5
# Elements a thread of torch gets at least (at::internal::GRAIN_SIZE), and arithmetic from which a product is divided.
GRAIN, PRODUCT_GRAIN = 32768.0, 2.0 * 96.0**3
FORKS = "forks"
SERIAL = ("nll_loss_forward", "nll_loss_backward", "embedding_dense_backward", "index_add", "topk", "randperm")
# Terms that more threads do not shorten.
_WHOLE = ("calls", FAR, FRESH, NODES, SWITCHES, "m")
_BACKWARD = "backward"
# Calls into libraries of their own, which no compiler folds into loops.
_LIBRARY = ("product", "attention", "convolution", "recurrent", "bag")


def family(op: TracedOp) -> str:
    """Which law an op follows: ops of one family share its terms."""
    if op.kind == "product":
        if op.name.startswith("linear-"):
            return f"{op.name}-thin" if op.m <= THIN_ROWS else op.name
        if op.batch > 1.0:
            return "batched product"
        return "thin product" if min(op.m, op.n) <= THIN_ROWS else "product"
    if op.kind == "attention":
        what = "attention backward" if _BACKWARD in op.name else "attention step" if op.m <= THIN_ROWS else "attention"
        return f"{op.layout} {what}".strip()
    if op.kind == "convolution":
        direction = "convolution backward" if _BACKWARD in op.name else "convolution"
        return f"{direction}, channels {op.layout}"
    if op.kind == "bag":
        # Without gradients the library calls the same code by another name.
        return f"{op.name.removesuffix('_forward_only')} {op.layout}".strip()
    return f"{op.name} {op.layout}".strip()


def law_name(op: TracedOp) -> str:
    """The law of an op: its family in its number format."""
    return f"{family(op)} {op.dtype}".strip()


def shared_by(op: TracedOp, threads: int) -> float:
    """How many threads a call's arithmetic is divided among; more than one costs a fork.

    1. torch gives each thread at least GRAIN elements of an element-wise op, and counts each tensor of a list by itself.
    2. Products, attention, convolutions and recurrent layers take all threads from PRODUCT_GRAIN on: below that, waking them costs more.
    3. Ops that write where others may write, or that look through a vocabulary, run on one.
    """
    if threads <= 1 or op.kind in ("view", "python", "collective") or op.name in SERIAL:
        return 1.0
    if op.kind in ("product", "attention", "convolution", "recurrent"):
        return float(threads) if op.flop >= PRODUCT_GRAIN else 1.0
    each = op.elements / op.m if op.name.startswith(("_foreach", "_fused")) and op.m else op.elements
    return min(float(threads), max(-(-each // GRAIN), 1.0))


def terms(op: TracedOp, threads: int = 1) -> dict[tuple[str, str], float]:
    """What one call does, by (law, term): amounts that a law's seconds per unit multiply."""
    found = _terms(op)
    sharers = shared_by(op, threads)
    if sharers > 1.0:
        # Memory gives one thread what it gives to all; caches of the cores and arithmetic do not.
        found = {key: amount / sharers if key[1] not in _WHOLE else amount for key, amount in found.items()}
        found[MACHINE, FORKS] = 1.0
    return found


def _terms(op: TracedOp) -> dict[tuple[str, str], float]:
    law = law_name(op)
    found: dict[tuple[str, str], float] = {(law, "calls"): op.launches}
    if op.kind == "collective":
        return found | {(law, "bytes"): op.elements}
    if op.kind == "python":
        return found | ({(law, SWITCHES): op.switches} if op.switches else {})
    if op.kind == "product":
        found |= {
            (law, "m n k"): op.batch * op.m * op.n * op.k * (op.flop / max(2.0 * op.batch * op.m * op.n * op.k, 1.0)),
            (law, "m n"): op.batch * op.m * op.n,
            # A transposed operand is packed along the other way, at another price.
            (law, f"m k {op.layout[:1]}"): op.batch * op.m * op.k,
            (law, f"n k {op.layout[1:]}"): op.batch * op.n * op.k,
        }
    elif op.kind == "attention":
        found |= {
            (law, "flop"): op.flop,
            (law, "scores"): op.batch * op.m * op.n,
            (law, "elements"): op.elements,
        }
    elif op.kind == "convolution":
        found |= {
            (law, "flop"): op.flop,
            (law, "outputs"): op.m * op.n,
            (law, "patches"): op.m * op.k,
            (law, "weights"): op.n * op.k,
        }
    elif op.kind == "recurrent":
        # Each step is a call of its own inside the library, and reads the weights again.
        found |= {
            (law, "flop"): op.flop,
            (law, "steps"): op.batch,
            (law, "weights"): op.batch * op.n * op.k,
            (law, "elements"): op.batch * op.m * op.n,
        }
    elif op.kind == "bag":
        # A row looked up waits for its first line, from a cache or from memory; then the row streams.
        found |= {(law, "elements"): op.elements, (law, "rows"): op.m, (law, "far rows"): op.n}
    elif op.kind != "view":
        found[law, "elements"] = op.elements
        if op.m:
            found[law, "m"] = op.m
    for name in (NEAR, FAR, FRESH, NODES, SWITCHES):
        amount = getattr(op, name)
        if amount:
            # A product reads its operands while it multiplies, a bag its rows at random: what of their traffic shows is their own.
            found[law if name == FAR and op.kind in ("product", "bag") else MACHINE, name] = amount
    return found


def libraries(trace: Trace) -> dict[str, float]:
    """What makes libraries load code and keep buffers of their own: each kind of op, once, and the number of ops of other kinds."""
    found = {"process": 1.0}
    others = set()
    for op in trace.ops:
        if op.kind in _LIBRARY:
            what = op.name if op.name.startswith("linear-") else op.kind
            found[f"{what}{' backward' if _BACKWARD in op.name else ''} {op.dtype}"] = 1.0
        elif op.name == "backward pass":
            found[op.name] = 1.0
        elif op.kind not in ("python", "view"):
            others.add(law_name(op))
    return found | ({"other ops": float(len(others))} if others else {})


def fused(trace: Trace) -> Trace:
    """A step whose network was compiled.

    1. Element-wise ops, norms, softmax and reductions between two products become one loop: no call, no view, no node and no
       Python module of their own; their arithmetic stays.
    2. Such a loop keeps what it passes on to itself in registers: half of the traffic of its ops, as each result is
       read once. Fresh pages are those of half the results.
    3. Products, attention, convolutions, recurrent layers and embedding bags stay library calls. Loss and optimizer are not compiled.
    """
    found = []
    for op in trace.ops:
        if op.phase not in ("forward", _BACKWARD) or op.kind in _LIBRARY:
            found.append(replace(op, nodes=0.0) if op.phase == "forward" else op)
        elif op.kind == "python":
            if op.name != "module":
                found.append(op)
        elif op.kind != "view":
            half = {name: getattr(op, name) * FUSED_TRAFFIC for name in (NEAR, FAR, FRESH)}
            found.append(replace(op, launches=0.0, nodes=0.0, switches=0.0, **half))
    return replace(trace, ops=tuple(found))


def run_terms(
    trace: Trace, fresh_bytes: float | None = None, phase: str | None = None, threads: int = 1
) -> dict[tuple[str, str], float]:
    """Terms of a run, or of one phase of it. fresh_bytes: what was measured of fresh pages, in place of what the trace expects."""
    found: dict[tuple[str, str], float] = {}
    for op in trace.ops:
        if phase in (None, op.phase):
            for key, amount in terms(op, threads).items():
                found[key] = found.get(key, 0.0) + amount * op.calls
    if phase is not None and _BACKWARD in trace.phases:
        there = sum(op.calls * op.nodes for op in trace.ops)
        here = found.pop((MACHINE, NODES), 0.0) * NODE_SHARE_FORWARD
        found[MACHINE, NODES] = here + (there * (1.0 - NODE_SHARE_FORWARD) if phase == _BACKWARD else 0.0)
    if fresh_bytes is not None:
        found[MACHINE, FRESH] = fresh_bytes
    return found


class LocalLaws(Record):
    """Fitted laws of one machine.

    seconds: per unit of each term, by law; "any KIND DTYPE" stands in for ops never measured. spread: quantiles
    (5, 50, 95 %) of ln(measured / predicted) of the kernels; steps: of whole training steps, which no fit saw, where some were
    measured. environment: where it was fitted. libraries_bytes: memory a
    process holds beside its tensors, by what makes libraries hold it. The cache sizes are those that decided
    which bytes count as near.
    """

    seconds: Mapping[str, Mapping[str, float]]
    spread: tuple[float, float, float]
    environment: Mapping[str, Any]
    threads: int
    inner_cache_bytes: float
    last_cache_bytes: float
    settings: Mapping[str, Any] = {}
    libraries_bytes: Mapping[str, float] = {}
    device: str = "cpu"
    steps: tuple[float, float, float] | None = None

    def memory_bytes(self, trace: Trace) -> float:
        """Most that a run holds beyond the process at rest: tensors and gaps between them, libraries' code and buffers."""
        held = sum(self.libraries_bytes.get(name, 0.0) * amount for name, amount in libraries(trace).items())
        return trace.peak_bytes + held

    def law_of(self, law: str, kind: str) -> Mapping[str, float] | None:
        """The terms of a law, or of the one that stands in for it; None where nothing like it was measured."""
        found = self.seconds.get(law)
        if found is not None:
            return found
        name, _, dtype = law.rpartition(" ")
        general = name.removeprefix("thin ").removesuffix("-thin").removeprefix("cached ")
        if general != name and f"{general} {dtype}" in self.seconds:
            return self.seconds[f"{general} {dtype}"]
        for other in (f"{name} {near}" for near in _NEAREST.get(dtype, ("fp32",))):
            if other in self.seconds:
                return self.seconds[other]
        for pool in (f"any {kind} {dtype}", f"any {kind} fp32"):
            if pool in self.seconds:
                return self.seconds[pool]
        return None

    def op_s(self, op: TracedOp) -> float | None:
        """Seconds of one call; None where its kind was never measured."""
        total = 0.0
        machine = self.seconds[MACHINE]
        for (law, term), amount in terms(op, self.threads).items():
            if law == MACHINE:
                total += amount * machine.get(term, 0.0) * (term != NODES)
                continue
            rates = self.seconds.get(law, {}) if op.kind == "python" else self.law_of(law, op.kind)
            if rates is None:
                return None
            total += amount * rates.get(term, 0.0)
        return total

    def roofline_s(self, op: TracedOp) -> float:
        """Seconds of one call at best: its FLOPs at the rate of large products, or its bytes at the memory's, whichever is slower."""
        rate = self.law_of(f"product {op.dtype}", "product") or {}
        moved = (op.near_bytes + op.far_bytes + op.fresh_bytes) * self.seconds[MACHINE].get(FAR, 0.0)
        return max(op.flop / 2.0 * rate.get("m n k", 0.0), moved)

    def run_s(self, row: Mapping[tuple[str, str], float], trace: Trace) -> float:
        """Seconds of a run by its terms; ops never measured count nothing."""
        kinds = {law_name(op): op.kind for op in trace.ops}
        total = 0.0
        for (law, term), amount in row.items():
            own = law == MACHINE or kinds[law] == "python"
            rates = self.seconds.get(law) if own else self.law_of(law, kinds[law])
            total += amount * (rates or {}).get(term, 0.0)
        return total

    def trace_s(self, trace: Trace) -> tuple[dict[str, float], list[str]]:
        """Seconds of a run by phase, and the ops that could not be priced."""
        phases = dict.fromkeys(trace.phases or ("",), 0.0)
        missing: dict[str, None] = {}
        machine = self.seconds[MACHINE]
        backward = next((name for name in phases if name == _BACKWARD), None)
        for op in trace.ops:
            seconds = self.op_s(op)
            if seconds is None:
                missing[f"{op.name} {op.dtype}"] = None
                continue
            phases[op.phase] = phases.get(op.phase, 0.0) + op.calls * seconds
            node = op.calls * op.nodes * machine.get(NODES, 0.0)
            there = op.phase if backward is None else backward
            phases[op.phase] += node * NODE_SHARE_FORWARD
            phases[there] = phases.get(there, 0.0) + node * (1.0 - NODE_SHARE_FORWARD)
        return phases, list(missing)


# Formats whose laws are nearest, best first.
_NEAREST = {
    "bf16": ("fp16", "fp32"),
    "fp16": ("bf16", "fp32"),
    "fp64": ("fp32",),
    "int64": ("fp32",),
    "int32": ("fp32",),
    "bool": ("fp32",),
}


def pool(law: str, kind: str) -> str:
    """The name of what stands in for a law of a kind."""
    return f"any {kind} {law.rpartition(' ')[2]}"


def named(terms_: Iterable[tuple[str, str]]) -> list[str]:
    """Laws in a set of terms, the machine's and the interpreter's left out."""
    return sorted({law for law, _ in terms_ if law != MACHINE and law not in PYTHON})


def to_document(laws: LocalLaws) -> dict[str, Any]:
    """Plain values for a file."""
    from capacity.record import asdict

    return {"schema": SCHEMA, **asdict(laws)}


def from_document(document: Any, path: str) -> LocalLaws:
    """The laws of a file; raises FileFormatError for anything else."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise FileFormatError(f"{path}: holds no laws of schema {SCHEMA}: run `capacity calibrate local` again")
    fields = {name: value for name, value in document.items() if name != "schema"}
    try:
        for name in ("spread", "steps"):
            if name == "spread" or fields.get(name) is not None:
                low, mid, high = fields[name]
                fields[name] = (float(low), float(mid), float(high))
        return LocalLaws(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{path}: is incomplete ({str(error)[:80]}): run `capacity calibrate local` again"
        ) from None
