"""What a run does beside its full steps: the smaller steps of a batch that warms up, and evaluation."""

from __future__ import annotations

from capacity import ops
from capacity.estimators.intervals import Value
from capacity.estimators.refusal import refuse
from capacity.formula import scaled, sourced, total
from capacity.formulas import schedule
from capacity.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.training_run import Run

# Megatron-LM's defaults (megatron2024): 100 batches after every 1,000 steps.
EVAL_INTERVAL, EVAL_BATCHES = 1000.0, 100.0
# GPT-3's warm-up of the batch: from 32 thousand tokens a step, over 12 of its 300 billion tokens.
RAMP_FROM_TOKENS, RAMP_SHARE = 32768.0, 0.04


class Beside(Record):
    """Steps of a run and what comes beside the full ones.

    even: steps that all tokens would take at the whole batch; full: those taken at it; ramp: smaller ones before.
    ramp_s, evaluation_s: seconds of all of them; evaluated: tokens of all evaluations.
    """

    even: float
    full: float
    ramp: float
    ramp_s: float
    evaluations: float
    evaluation_s: float
    evaluated: float

    @property
    def steps(self) -> float:
        """Optimizer steps, small and full."""
        return total({"full": self.full, "ramp": self.ramp}) if ops.anywhere(self.ramp) else self.full

    @property
    def seconds(self) -> float:
        """All that is not full steps."""
        return total({"batch ramp": self.ramp_s, "evaluation": self.evaluation_s})

    def goodput(self, step_s: float, kept: float) -> float:
        """Share of wall time in full steps at full pace; kept: what failures and checkpoints leave."""
        run_s = schedule.run_time_s(self.full, step_s, kept, self.seconds)
        return schedule.useful_share(self.even, step_s, run_s)

    def activity(self, step_s: float, forward_share: float) -> float:
        """Work of the run over that of as much time in full steps: small steps idle, evaluation goes forward only.

        forward_share: work of one evaluated token over that of all training.
        """
        if not ops.anywhere(self.seconds):
            return 1.0
        busy = self.even * step_s * (1.0 + self.evaluated * forward_share) / (self.full * step_s + self.seconds)
        return busy if ops.is_column(busy) else sourced(float(busy), "work of the run over as much time in full steps")


def read_beside(case: Case, tokens: float, seq_len: float, batch: float) -> dict[str, Any]:
    """Evaluation and warm-up of the batch as fields of a workload, where either is asked for."""
    request, take = case.request, case.assumptions.take
    found: dict[str, Any] = {}
    if "eval_interval" in request or "eval_tokens" in request:
        found["eval_interval"] = take(
            "evaluation interval",
            case.number("eval_interval", "1", 1.0, 1e12, whole=True),
            EVAL_INTERVAL,
            "1",
            "steps; Megatron-LM's default (megatron2024)",
        )
        found["eval_tokens"] = take(
            "evaluation tokens",
            case.number("eval_tokens", "1", 1.0, 1e15),
            EVAL_BATCHES * batch * seq_len,
            "1",
            "100 global batches, Megatron-LM's default (megatron2024)",
        )
    if "ramp_tokens" in request or "ramp_from" in request:
        found["ramp_tokens"] = take(
            "batch ramp tokens",
            case.number("ramp_tokens", "1", 1.0, 1e17),
            RAMP_SHARE * tokens,
            "1",
            "4 % of the run, as GPT-3's (brown2020)",
        )
        found["ramp_from"] = take(
            "batch ramp from",
            case.number("ramp_from", "1", 1.0, 1e8, whole=True),
            ops.maximum(ops.minimum(RAMP_FROM_TOKENS // seq_len, batch / 2.0), 1.0),
            "1",
            "sequences; 32k tokens, as GPT-3's (brown2020)",
        )
        first, over = found["ramp_from"], found["ramp_tokens"]
        refuse(
            first >= batch,
            lambda row: (
                f"--ramp-from {row(first):g} is not below the batch of {row(batch):g} sequences that it rises to; "
                "lower it or raise --batch"
            ),
        )
        refuse(
            over > tokens,
            lambda row: f"--ramp-tokens {row(over):g} is more than the {row(tokens):g} tokens of the run; lower it",
        )
    return found


def beside(run: Run, step_s: float) -> Beside:
    """Steps and seconds of a priced run, whose full step takes step_s."""
    workload = run.workload
    batch = sourced(workload.global_batch, "global batch")
    seq_len = sourced(workload.seq_len, "sequence length")
    tokens = sourced(workload.tokens, "training tokens")
    ramp = ramp_s = 0.0
    if ops.anywhere(workload.ramp_tokens):
        sequences = workload.ramp_tokens / seq_len
        ramp = schedule.ramp_steps(sequences, workload.ramp_from, batch)
        # One micro-batch on each replica; a whole batch that is smaller leaves devices idle anyway.
        least = ops.minimum(run.plan.dp * run.plan.micro_batch, batch)
        ramp_s = schedule.ramp_time_s(sequences, workload.ramp_from, batch, least, step_s, run.sequence_s)
        tokens = sourced(workload.tokens - workload.ramp_tokens, "training tokens after the ramp")
    even = schedule.optimizer_steps(sourced(workload.tokens, "training tokens"), batch, seq_len)
    full = schedule.optimizer_steps(tokens, batch, seq_len)
    held, evaluation_s = 0.0, 0.0
    if ops.anywhere(workload.eval_tokens):
        held = schedule.evaluations(total({"full": full, "ramp": ramp}), workload.eval_interval)
        evaluation_s = scaled(run.evaluation_s, held)
    return Beside(even, full, ramp, ramp_s, held, evaluation_s, held * workload.eval_tokens)


def beside_values(extra: Beside, factor: float) -> dict[str, Value]:
    """Quantities of what a run does beside full steps; factor: on all times."""
    found: dict[str, Value] = {}
    if ops.anywhere(extra.evaluations):
        found["evaluations"] = Value(extra.evaluations, "1", "over the run, forward only")
        found["evaluation_time"] = Value(scaled(extra.evaluation_s, factor), "s", "of all of them")
    if ops.anywhere(extra.ramp):
        found["ramp_steps"] = Value(extra.ramp, "1", "while the batch rises")
        found["ramp_time"] = Value(scaled(extra.ramp_s, factor), "s", "of these steps")
    return found
