"""Every legal training layout of a number of devices, as columns.

Layouts are dealt in blocks that share what is a word or a flag (schedule, sharding stage, recomputation, offloading); inside
a block all else is a column. What two layouts share is kept once: a `Cuts` row says how the model and the batch are cut,
and the rows of blocks point to it.

Left out, because another layout of the space is never worse in any respect that is priced: GPipe (1F1B takes as long and
holds less), states that are not sharded (ZeRO-1 moves as much and holds less), keys gathered at once (as the ring), replicas of what ZeRO-1 and -2 shard, ZeRO-2 over several micro-batches
(ZeRO-3 reduces as often and holds less). A user who names one of them gets it.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from capacity.estimators import feeding, layout
from capacity.record import Record
from capacity.spec.model import Attention

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from capacity.estimators.stacks import Stack
    from capacity.spec.model import ModelSpec
    from capacity.spec.workload import Workload

    # Columns of floats and of row numbers: to a formula, a float in every row.
    Column = Any
    Index = Any

# The fewest tokens of a sequence that a context-parallel rank is given, each of its two halves: a tile of attention.
LEAST_TOKENS = 128.0
# Shares of the blocks that full recomputation rebuilds.
SHARES = (0.25, 0.5, 0.75, 1.0)
# Stacks that shard weights inside a pipeline stage.
SHARDS_STAGES = ("fsdp", "torchtitan", "jax", "hugging-face")
OFFLOADS: tuple[tuple[str, ...], ...] = (
    (),
    ("optimizer",),
    ("activations",),
    ("optimizer", "activations"),
    ("optimizer", "parameters"),
    ("optimizer", "parameters", "activations"),
)


class Cuts(Record):
    """How model and batch are cut, a row each: the degrees, the micro-batch and how many of them a step has."""

    tp: Column
    pp: Column
    cp: Column
    dp: Column
    ep: Column
    etp: Column
    micro_batch: Column
    rounds: Column

    def __len__(self) -> int:
        return len(self.tp)


class Kind(Record):
    """What the layouts of a block have in common. whole: each device keeps one whole expert of a layer."""

    schedule: str = "1f1b"
    zero: int = 0
    cp_kind: str = "ring"
    recompute: str = "none"
    offload: tuple[str, ...] = ()
    offload_to: str = "cpu"
    whole: bool = False
    rebuilt: tuple[str, ...] = ()

    @property
    def words(self) -> dict[str, Any]:
        """As fields of a Plan."""
        return {name: getattr(self, name) for name in self._fields if name != "whole"}


class Block(Record):
    """Layouts of one kind: `cut` points to rows of Cuts; interleave, replicas and share are columns beside it."""

    kind: Kind
    cut: Index
    interleave: Column
    replicas: Column
    share: Column

    def __len__(self) -> int:
        return len(self.cut)


def divisors(of: float, most: float = 1e9) -> list[float]:
    """Whole numbers that divide a whole number, up to a limit."""
    number = int(of)
    small = [float(one) for one in range(1, int(number**0.5) + 1) if number % one == 0]
    return sorted({one for low in small for one in (low, number / low) if one <= most})


def cuts_of(
    model: ModelSpec, workload: Workload, devices: float, given: dict[str, Any], *, most_tp: float = 64.0
) -> Cuts:
    """All legal ways to cut a model and its batch over so many devices, with what the user fixed held."""
    experts = layout.expert_count(model)
    rows: list[tuple[float, ...]] = []
    for tp in _allowed(given, "tp", [tp for tp in divisors(devices, most_tp) if layout.divides_heads(model, tp)]):
        if devices % tp:
            continue
        for pp in _allowed(given, "pp", [pp for pp in divisors(devices / tp) if pp <= feeding.layer_count(model)]):
            for cp in _allowed(given, "cp", [cp for cp in divisors(devices / (tp * pp)) if _long(workload, cp)]):
                dp = devices / (tp * pp * cp)
                if not dp.is_integer() or given.get("dp", dp) != dp or workload.global_batch % dp:
                    continue
                for etp in _allowed(given, "etp", list(dict.fromkeys((1.0, tp))) if experts else [tp]):
                    for ep in _allowed(given, "ep", divisors(experts) if experts else [1.0]):
                        if tp % etp or dp * cp * tp / etp % ep:
                            continue
                        for micro_batch in _allowed(given, "micro_batch", divisors(workload.global_batch / dp)):
                            rounds = workload.global_batch / (dp * micro_batch)
                            if rounds.is_integer():
                                rows.append((tp, pp, cp, dp, ep, etp, micro_batch, rounds))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 8).T.copy()
    return Cuts(*columns)


def _allowed(given: dict[str, Any], name: str, otherwise: list[float]) -> list[float]:
    return [given[name]] if name in given else otherwise


def _long(workload: Workload, cp: float) -> bool:
    """Whether a sequence can be cut over so many ranks, two pieces each to even out causal attention."""
    return cp == 1.0 or (workload.seq_len % (2.0 * cp) == 0.0 and workload.seq_len >= 2.0 * cp * LEAST_TOKENS)


def blocks_of(model: ModelSpec, cuts: Cuts, given: dict[str, Any], stack: Stack) -> Iterator[Block]:
    """All legal layouts over these cuts, a block for each kind."""
    experts = layout.expert_count(model)
    whole = (cuts.ep == experts) if experts else np.zeros(len(cuts), dtype=bool)
    target = given.get("offload_to", "cpu")
    schedules = [given["schedule"]] if "schedule" in given else ["1f1b", "zero-bubble", "dualpipe"]
    zeros = [int(given["zero"])] if "zero" in given else [1, 3, 2, 0]
    kinds = [given["cp_kind"]] if "cp_kind" in given else ["ring", "ulysses"]
    offloads = [given["offload"]] if "offload" in given else list(OFFLOADS)
    for schedule, whole_experts in product(schedules, (False, True)):
        pipes = _pipelines(model, cuts, schedule, given, whole == whole_experts)
        for zero, cp_kind in product(zeros, kinds):
            cut, interleave, replicas = _sharded(cuts, pipes, zero, given, stack)
            kept = _meets(model, cuts, cp_kind, given)[cut]
            cut, interleave, replicas = cut[kept], interleave[kept], replicas[kept]
            if not len(cut):
                continue
            for word, shares in _recomputations(given):
                # Blocks that differ in what is offloaded alone share their columns.
                rows = np.repeat(np.arange(len(cut)), len(shares)) if len(shares) > 1 else slice(None)
                columns = cut[rows], interleave[rows], replicas[rows], np.tile(np.array(shares), len(cut))
                for offload in offloads:
                    if _offloadable(offload, zero, given):
                        kind = Kind(
                            schedule, zero, cp_kind, word, offload, target, whole_experts, given.get("rebuilt", ())
                        )
                        yield Block(kind, *columns)


def _recomputations(given: dict[str, Any]) -> list[tuple[str, tuple[float, ...]]]:
    words = [given["recompute"]] if "recompute" in given else ["none", "selective", "full"]
    shares = (given["recompute_share"],) if "recompute_share" in given else SHARES
    return [(word, shares if word == "full" else (1.0,)) for word in words]


def _offloadable(offload: tuple[str, ...], zero: int, given: dict[str, Any]) -> bool:
    """Whether software offloads so: parameters under ZeRO-3 only; states are sharded first."""
    if "offload" in given:
        return True
    return ("parameters" not in offload or zero == 3) and ("optimizer" not in offload or zero >= 1)


def _pipelines(model: ModelSpec, cuts: Cuts, schedule: str, given: dict[str, Any], among: Any) -> tuple[Index, Column]:
    """Cuts that a schedule can run, with the chunks a stage interleaves."""
    layers = feeding.layer_count(model)
    alone = cuts.pp == 1.0
    legal = among & (~alone | (schedule == given.get("schedule", "1f1b")))
    if schedule == "dualpipe":
        # Micro-batches enter from both ends of an even number of stages.
        legal &= alone | ((cuts.pp % 2.0 == 0.0) & (cuts.rounds % 2.0 == 0.0) & (cuts.rounds >= 2.0 * cuts.pp))
    found: list[tuple[Index, Column]] = []
    fullest = np.ceil(layers / cuts.pp)
    most = int(fullest[~alone].max(initial=1.0)) if schedule == "1f1b" else 1
    for chunks in _allowed(given, "interleave", [float(count) for count in range(1, most + 1)]):
        fits = legal
        if chunks > 1.0:
            # Chunks of whole layers that leave the fullest stage no fuller, and micro-batches in whole rounds of the stages.
            even = np.ceil(layers / (cuts.pp * chunks)) * chunks == fullest
            fits = legal & ~alone & even & (cuts.pp * chunks <= layers) & (cuts.rounds % cuts.pp == 0.0)
        where = np.flatnonzero(fits)
        found.append((where, np.full(len(where), chunks)))
    return np.concatenate([cut for cut, _ in found]), np.concatenate([chunks for _, chunks in found])


def _sharded(
    cuts: Cuts, pipes: tuple[Index, Column], zero: int, given: dict[str, Any], stack: Stack
) -> tuple[Index, Column, Column]:
    """Pipelines that a sharding stage goes with, and into how many replicas the sharded weights are copied."""
    cut, interleave = pipes
    ranks, pp, rounds = cuts.dp * cuts.cp, cuts.pp, cuts.rounds
    legal = (ranks == 1.0) if zero == 0 else (ranks > 1.0)
    if "zero" in given:
        legal = legal | True
    if "zero" not in given:
        if zero >= 2 and stack.name not in SHARDS_STAGES:
            legal &= pp == 1.0
        if zero == 2:
            legal &= rounds == 1.0
    kept = legal[cut]
    cut, interleave = cut[kept], interleave[kept]
    if "replicas" in given or zero < 3:
        copies = float(given.get("replicas", 1.0))
        fits = (ranks[cut] % copies) == 0.0
        cut, interleave = cut[fits], interleave[fits]
        return cut, interleave, np.full(len(cut), copies)
    found: list[tuple[Index, Column, Column]] = []
    for copies in divisors(float(cuts.dp.max(initial=1.0))):
        fits = (cuts.dp[cut] % copies == 0.0) & (ranks[cut] > copies)
        found.append((cut[fits], interleave[fits], np.full(int(fits.sum()), copies)))
    cut, interleave, replicas = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return cut, interleave, replicas


def _meets(model: ModelSpec, cuts: Cuts, cp_kind: str, given: dict[str, Any]) -> Any:
    """Cuts whose context-parallel ranks can meet so: heads are traded for tokens only as whole heads."""
    if cp_kind == "ulysses":
        heads = [
            layer.heads for block in feeding.layers(model) for layer in block.sublayers if isinstance(layer, Attention)
        ]
        whole = np.all([count % (cuts.tp * cuts.cp) == 0.0 for count in heads or [1.0]], axis=0)
        return whole & ((cuts.cp > 1.0) | ("cp_kind" in given))
    return np.ones(len(cuts), dtype=bool)
