"""A block of training layouts priced: seconds of a step and bytes of the fullest device, a column each.

Nothing is estimated here: the terms, the step and the memory are those of `capacity estimate`. What many layouts share, the
kernels of a way to cut the model above all, is priced once and dealt out.
"""

from __future__ import annotations

import numpy as np

from capacity.estimators import feeding
from capacity.estimators.layout import expert_count
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.training_memory import training_memory
from capacity.estimators.training_run import machine_of
from capacity.estimators.training_terms import BUBBLE_CUT, Terms, price_terms
from capacity.estimators.training_time import assemble, evaluation_time, forward_time
from capacity.estimators.training_traffic import data_parallel, local_of, streamed_s
from capacity.estimators.training_weights import weights_of
from capacity.formulas import schedule
from capacity.record import fields, replace
from capacity.spec.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.stacks import Stack
    from capacity.planning.space import Block, Column, Cuts, Index, Kind
    from capacity.spec.op import Op
    from capacity.spec.workload import Workload

# Rows worked on at once: their columns stay in a core's own cache.
CHUNK = 8192
# Terms that hang on how weights and states are sharded and kept, not on the kernels.
_STATES = ("gather", "gathers", "reduce", "accumulated", "updated", "orthogonalised", "offloaded")
# Parts of a step that no schedule, sharding or recomputation takes away.
_UNAVOIDABLE = ("GEMM", "expert products", "casts", "attention", "element-wise", "tensor-parallel traffic")


class TrainingPrices:
    """Prices blocks of one case on one number of devices."""

    def __init__(self, case: Case, workload: Workload, devices: float, cuts: Cuts) -> None:
        self.case = case
        self.workload = workload
        self.devices = devices
        self.cuts = cuts
        self.machine = machine_of(case, case.cluster, workload, devices)
        self.weights = weights_of(lower(case.model, Tokens()))
        # Of sharded states all that matters of a cut; a row of cuts for each such, and which of them each cut is.
        states = np.stack([cuts.tp, cuts.pp, cuts.cp, cuts.ep, cuts.etp])
        _, self._firsts, self._state_of = np.unique(states, axis=1, return_index=True, return_inverse=True)
        self._kernels: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._states: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._floors: dict[tuple[Any, ...], tuple[Column, ...]] = {}

    @property
    def stack(self) -> Stack:
        """The training software."""
        return self.machine.stack

    def plan(self, block: Block, rows: Index | slice) -> Plan:
        """Rows of a block as one plan of columns."""
        return self._plan(block.kind, block.cut[rows], block.interleave[rows], block.replicas[rows], block.share[rows])

    def _plan(self, kind: Kind, cut: Index, interleave: Any = 1.0, replicas: Any = 1.0, share: Any = 1.0) -> Plan:
        cuts = self.cuts
        routed = {"etp": cuts.etp[cut]} if self.weights.experts else {}
        return Plan(
            dp=cuts.dp[cut],
            tp=cuts.tp[cut],
            pp=cuts.pp[cut],
            cp=cuts.cp[cut],
            ep=cuts.ep[cut],
            micro_batch=cuts.micro_batch[cut],
            interleave=interleave,
            replicas=replicas,
            recompute_share=share,
            **routed,
            **kind.words,
        )

    def memory(self, block: Block, rows: Index | slice) -> Column:
        """Bytes of the fullest device."""
        plan = self.plan(block, rows)
        rounds = self.cuts.rounds[block.cut[rows]]
        parts = training_memory(
            self.case.model, self.weights, self.workload, plan, rounds, self.case.profile.context_bytes
        )
        return np.broadcast_to(np.asarray(sum(parts.values())), rounds.shape)

    def terms(self, block: Block, rows: Index | slice) -> Terms:
        """The terms of a step."""
        kind, cut, interleave, replicas = block.kind, block.cut[rows], block.interleave[rows], block.replicas[rows]
        share = block.share[rows]
        found = {name: _taken(value, cut) for name, value in self._kernel_terms(kind).items()}
        copies, place = np.unique(replicas, return_inverse=True)
        states = self._state_terms(kind, copies)
        found |= {name: _taken(value, place * len(self.cuts) + cut) for name, value in states.items()}
        if {"parameters", "activations"} & {*kind.offload}:
            plan = self._plan(kind, cut, 1.0, replicas, share)
            model = self.case.model
            local = local_of(self.weights, plan, model.hidden)
            found["streamed"] = streamed_s(model, local, self.workload, plan, self.machine.network)
        found["hop"] = found["hop"] * interleave
        found["chunks"] = found["chunks"] * interleave
        found["full"] = share if kind.recompute == "full" else 0.0
        found["selective"] = float(kind.recompute == "selective" and not kind.rebuilt)
        layers, pp = feeding.layer_count(self.case.model), self.cuts.pp[cut]
        found["fullest"] = schedule.fullest_stage_layers(layers, pp, interleave) * pp / layers
        found["spare"] = schedule.spare_layers(layers, pp, interleave)
        return Terms(**found)

    def step(self, block: Block, rows: Index | slice) -> Column:
        """Seconds of a step."""
        found = sum(self.parts(self.terms(block, rows)).values()) + self.guided(block, rows)
        return np.broadcast_to(np.asarray(found), block.cut[rows].shape)

    def guided(self, block: Block, rows: Index | slice) -> Column | float:
        """Seconds of a step that models take that go forward beside, such as a teacher; 0 without any."""
        plan, machine = self.plan(block, rows), self.machine
        found: Any = 0.0
        for _, guide in self.workload.guides:
            cut = plan if expert_count(guide) else replace(plan, ep=1.0, etp=None)
            each = forward_time(guide, self.workload, cut, machine.network, machine.pricer, machine.stack)
            found = found + each * self.cuts.rounds[block.cut[rows]] * self.case.site_factor
        return found

    def beside(self, block: Block, rows: Index, step: Column) -> dict[str, Column]:
        """Of runs that are evaluated or warm up: seconds of an evaluation, and what a sequence adds to a step."""
        found: dict[str, Column] = {}
        plan, machine, rounds = self.plan(block, rows), self.machine, self.cuts.rounds[block.cut[rows]]
        if self.workload.eval_tokens:
            found["evaluation_s"] = self.case.site_factor * evaluation_time(
                self.case.model, self.workload, plan, machine.network, machine.pricer, machine.stack
            )
        if self.workload.ramp_tokens:
            twice = sum(self.parts(replace(self.terms(block, rows), micro_batches=2.0 * rounds)).values())
            twice = twice + 2.0 * self.guided(block, rows)
            found["sequence_s"] = schedule.sequence_time_s(twice, step, rounds * plan.dp * plan.micro_batch)
        return found

    def floor(self, block: Block) -> Column:
        """For each row of a block, seconds that its step is not below: kernels, exposed traffic and bubble, and nothing else."""
        kind, cut = block.kind, block.cut
        once, again = self._bare(kind)
        layers, pp = feeding.layer_count(self.case.model), self.cuts.pp[cut]
        chunks = block.interleave * BUBBLE_CUT.get(kind.schedule, 1.0)
        passes = schedule.fullest_stage_layers(layers, pp) * pp / layers + (pp - 1.0) / (chunks * self.cuts.rounds[cut])
        found: Column = (once[cut] + again[cut] * (block.share if kind.recompute == "full" else 1.0)) * passes
        return found

    def _bare(self, kind: Kind) -> tuple[Column, Column]:
        """For each cut, seconds of a step's kernels and exposed traffic on the mean stage, and of all it recomputes."""
        key = (kind.cp_kind, kind.schedule, kind.whole, kind.recompute, kind.rebuilt)
        if key not in self._floors:
            rows = self._whole(kind)
            terms = {name: _taken(value, rows) for name, value in self._kernel_terms(kind).items()}
            terms |= dict.fromkeys(_STATES, 0.0) | {"streamed": 0.0, "fullest": 1.0}
            terms["full"] = float(kind.recompute == "full")
            terms["selective"] = float(kind.recompute == "selective" and not kind.rebuilt)
            parts = self.parts(Terms(**terms))
            self._floors[key] = tuple(
                self._spread(sum(part for name, part in parts.items() if name in names), rows)
                for names in (_UNAVOIDABLE, ("recomputation",))
            )
        once, again = self._floors[key]
        return once, again

    def parts(self, terms: Terms, stack: Stack | None = None) -> dict[str, Any]:
        """Seconds of a step by part, under another stack where one is given."""
        site = self.case.site_factor
        host = self.machine.pricer.profile.host_layer_s
        return {name: part * site for name, part in assemble(terms, stack or self.stack, host).items()}

    def table(self, plan: Plan) -> tuple[Op, ...]:
        """Forward ops of one micro-batch."""
        return lower(self.case.model, feeding.learn(self.case.model, plan.micro_batch, self.workload.seq_len))

    def _priced(self, plan: Plan, rounds: Any) -> Terms:
        model, machine = self.case.model, self.machine
        return price_terms(
            model, self.table(plan), self.weights, self.workload, plan, machine.network, machine.pricer, rounds,
            fused=machine.stack.fused_attention > 0.0,
        )  # fmt: skip

    def _kernel_terms(self, kind: Kind) -> dict[str, Any]:
        """Terms of every cut that no sharding, recomputation or offloading changes; streamed stands at nought."""
        key = (kind.cp_kind, kind.whole, kind.schedule, kind.rebuilt)
        if key not in self._kernels:
            whole = self._whole(kind)
            recompute = kind.recompute if kind.rebuilt else "none"
            plan = self._plan(replace(kind, zero=0, recompute=recompute, offload=()), whole)
            terms = self._priced(plan, self.cuts.rounds[whole])
            self._kernels[key] = {
                name: self._spread(getattr(terms, name), whole) for name in fields(Terms) if name not in _STATES
            }
        return self._kernels[key]

    def _state_terms(self, kind: Kind, copies: Column) -> dict[str, Any]:
        """Terms of sharded states, of every cut for each number of replicas, one after the other."""
        key = (kind.zero, kind.offload, kind.whole, *copies)
        if key not in self._states:
            whole = self._firsts[np.isin(self._firsts, self._whole(kind))]
            found: dict[str, list[Any]] = {name: [] for name in _STATES}
            for count in copies:
                kept = whole[(self.cuts.dp * self.cuts.cp)[whole] % count == 0.0]
                plan = self._plan(replace(kind, recompute="none"), kept, 1.0, count)
                local = local_of(self.weights, plan, self.case.model.hidden)
                machine, rounds = self.machine, self.cuts.rounds[kept]
                terms = data_parallel(local, self.workload, plan, machine.network, machine.pricer, rounds)
                for name in _STATES:
                    here = self._spread(terms[name], kept)
                    found[name].append(here[self._firsts[self._state_of]])
            self._states[key] = {name: np.concatenate(parts) for name, parts in found.items()}
        return self._states[key]

    def _whole(self, kind: Kind) -> Index:
        """Rows of the cuts this kind is about."""
        if not self.weights.experts:
            return np.arange(len(self.cuts))
        return np.flatnonzero((self.cuts.ep == self.experts) == kind.whole)

    def _spread(self, value: Any, rows: Index) -> Column:
        spread = np.zeros(len(self.cuts))
        spread[rows] = value
        return spread

    @property
    def experts(self) -> float:
        """Routed experts of a layer, 0 without."""
        return expert_count(self.case.model)


def _taken(value: Any, rows: Index) -> Any:
    return value[rows] if isinstance(value, np.ndarray) and value.ndim else value
