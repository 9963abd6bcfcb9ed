"""How long a decode step and a prompt take on one replica, part by part."""

from __future__ import annotations

from capacity import ops
from capacity.estimators import feeding
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.work import Kernel, collectives, kernels, small_kernels
from capacity.formula import scaled, sourced, total
from capacity.laws.step import LEAST_TILE_ROWS, kernel_time_s
from capacity.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from capacity.estimators.work import Machine
    from capacity.laws.engine import Engine
    from capacity.laws.step import StepLaw
    from capacity.spec.model import ModelSpec
    from capacity.spec.plan import Plan

# A prompt's share of these is priced for the whole prompt, that of all others for the chunk it is part of.
_BY_SEQUENCE = ("attention and KV cache", "recurrent state")


def decode_kernels(
    model: ModelSpec, plan: Plan, machine: Machine, running: float, prompt_len: float, written: float, drafted: float
) -> list[Kernel]:
    """Kernels of a step for `running` sequences of each attention rank, `written` tokens into their answers."""
    running = ops.maximum(running / plan.pp, 1.0)
    apart = feeding.reads_apart(model)
    tokens = feeding.next_token(running, prompt_len, written, apart=apart)
    if ops.anywhere(drafted):
        # Drafts are checked in one pass: as many sequences of one token each, which read one cache together.
        checked = feeding.next_token(running * (1.0 + drafted), prompt_len, written, apart=apart)
        once = kernels(lower(model, tokens), running, plan, machine)
        many = kernels(lower(model, checked), running * (1.0 + drafted), plan, machine)
        found = by_token(many) + [kernel for kernel in once if kernel.part in _BY_SEQUENCE]
        running = running * (1.0 + drafted)
    else:
        found = kernels(lower(model, tokens), running, plan, machine)
    return found + small_kernels(model) + collectives(model, running, plan, machine)


def moving(found: Iterable[Kernel], law: StepLaw) -> dict[str, float]:
    """Seconds by part of the breakdown, launches left out."""
    parts: dict[str, dict[str, float]] = {}
    for kernel in found:
        terms = parts.setdefault(kernel.part, {})
        name = kernel.name if kernel.name not in terms else f"{kernel.name} ({len(terms) + 1})"
        terms[name] = kernel_time_s(
            sourced(kernel.memory_s, "bytes at the datasheet's bandwidth"),
            sourced(kernel.work_s, "work at the dense peak"),
            sourced(kernel.tile_s, "a row of padding"),
            kernel.rows,
            sourced(kernel.unpack_s, "a vector operation for each packed weight"),
            law.bandwidth[kernel.bandwidth],
            law.peak[kernel.peak],
            law.tile_rows,
            law.unpack[kernel.unpack],
        )
    return {part: total(terms) for part, terms in parts.items()}


def launching(found: Iterable[Kernel], law: StepLaw, replay: float) -> dict[str, float]:
    """Seconds of launches by part of the breakdown."""
    parts: dict[str, dict[str, float]] = {}
    for kernel in found:
        if kernel.launch:
            terms = parts.setdefault(kernel.part, {})
            name = kernel.name if kernel.name not in terms else f"{kernel.name} ({len(terms) + 1})"
            terms[name] = scaled(law.launch_s[kernel.launch], sourced(kernel.launches, "launches"))
    rest = sourced(replay, "share of a launch left in a replayed graph", law.source, "measured")
    return {part: scaled(total(terms), rest) for part, terms in parts.items()}


class Busy(Record):
    """How busy a step keeps a device: its products as done (padded tiles too) at the 16-bit peak, its bytes at full bandwidth, in s.

    A product in fewer bits counts as much as one in 16: its multipliers draw as much, only for shorter (measured power).
    """

    compute_s: float
    memory_s: float

    def with_share(self, other: Busy, share: float) -> Busy:
        """This, and a share of another."""
        return Busy(self.compute_s + other.compute_s * share, self.memory_s + other.memory_s * share)


def busy_of(found: Iterable[Kernel], machine: Machine, law: StepLaw) -> Busy:
    """How busy kernels keep a device."""
    compute = memory = 0.0
    whole = machine.peak("bf16")
    wide: dict[str, float] = {"attention.decode": 1.0, "attention.prefill": 1.0, "scan": 1.0}
    for kernel in found:
        if kernel.peak not in wide:
            wide[kernel.peak] = machine.peak(([*kernel.peak.split("."), "bf16"])[1]) / whole
        done = kernel.work_s
        if kernel.part == "experts":
            done = done + kernel.tile_s * ops.minimum(law.tile_rows, LEAST_TILE_ROWS + kernel.rows)
        compute = compute + done * wide[kernel.peak]
        if kernel.bandwidth != "link":
            memory = memory + kernel.memory_s
    return Busy(compute, memory)


def joined(**tables: dict[str, float]) -> dict[str, float]:
    """Parts of several breakdowns, added up under their names."""
    names = dict.fromkeys(part for table in tables.values() for part in table)
    return {part: total({name: table[part] for name, table in tables.items() if part in table}) for part in names}


def by_token(found: Iterable[Kernel]) -> list[Kernel]:
    """Kernels that do not care which sequence a token is of."""
    return [kernel for kernel in found if kernel.part not in _BY_SEQUENCE]


def decode_step(found: list[Kernel], engine: Engine, running: float, *, sampled: bool = True) -> dict[str, float]:
    """Seconds of a step of these kernels that gives each of `running` sequences of an attention rank its next token."""
    parts = joined(kernels=moving(found, engine.law), launches=launching(found, engine.law, engine.replay))
    parts["engine"] = total(
        {
            "step": sourced(engine.step_s, "host time of a step", engine.source, "measured"),
            "sequences": scaled(
                sourced(
                    engine.sequence_s + (engine.sampled_sequence_s if sampled else 0.0),
                    "host time of a sequence",
                    engine.source,
                    "measured",
                ),
                sourced(running, "running sequences"),
            ),
        }
    )
    return parts


class Prompt:
    """Reading prompts of `tokens` tokens each, beside `past` that are cached, in chunks of chunk_tokens at most.

    core: kernels of one whole prompt's attention and recurrences; chunk: of all else in a step that reads chunk_tokens and
    nothing beside; small: those of any step.
    """

    __slots__ = ("chunk", "chunk_tokens", "chunks", "core", "layers", "model", "small", "tokens")

    def __init__(
        self, model: ModelSpec, plan: Plan, machine: Machine, tokens: float, past: float, chunk_tokens: float
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.chunk_tokens = ops.minimum(chunk_tokens, tokens)
        self.chunks = tokens / self.chunk_tokens
        self.layers = feeding.layer_count(model)
        whole = tuple(op for op in lower(model, _fed(model, tokens, past)) if op.kind in ("attention", "scan"))
        self.core = kernels(whole, tokens, plan, machine)
        self.chunk = read_kernels(model, plan, machine, self.chunk_tokens, 1.0)
        self.small = small_kernels(model)

    def mixed_tokens(self, most: float, running: float, output_len: float) -> float:
        """Tokens of prompts in the steps that read some, where `running` sequences decode beside.

        In steady state running / output_len requests end each step, and as many prompts take their places.
        """
        coming = ops.maximum(1.0, ops.minimum(running, running / output_len))
        return ops.minimum(most, self.tokens * coming)


def read_kernels(model: ModelSpec, plan: Plan, machine: Machine, tokens: float, logits: float) -> list[Kernel]:
    """Kernels, but those of attention and recurrences, of a step with `tokens` tokens of each attention rank."""
    fed = feeding.prompt(model, 1.0, tokens)
    table = lower(model, fed if fed.logits is None else replace(fed, logits=logits))
    table = tuple(op for op in table if op.kind not in ("attention", "scan"))
    return kernels(table, tokens, plan, machine) + collectives(model, tokens, plan, machine)


def _fed(model: ModelSpec, tokens: float, past: float) -> Tokens:
    fed = feeding.prompt(model, 1.0, tokens)
    return fed if not ops.anywhere(past) else Tokens(sequences=1.0, queries=tokens, past=past, logits=1.0)


def mixed_kernels(model: ModelSpec, plan: Plan, machine: Machine, tokens: float, decoded: float) -> list[Kernel]:
    """Kernels of a step that reads `tokens` tokens of prompts beside the decoding of `decoded` tokens."""
    if feeding.reads_apart(model):
        # An encoder reads them, in products that decoding has no part in.
        return read_kernels(model, plan, machine, tokens, 1.0)
    return read_kernels(model, plan, machine, tokens + decoded, 1.0 + decoded)


def mixed_work(
    prompt: Prompt,
    plan: Plan,
    machine: Machine,
    engine: Engine,
    beside: list[Kernel],
    running: float,
    output_len: float,
    drafted: float = 0.0,
) -> dict[str, float]:
    """Seconds one prompt adds to the steps it is read in, beside decoding that goes on anyway.

    beside: kernels of the decoding in such a step, of `running` sequences.
    """
    running = ops.maximum(running / plan.pp, 1.0)
    tokens = prompt.mixed_tokens(engine.chunk_tokens, running, output_len)
    mixed = mixed_kernels(prompt.model, plan, machine, tokens, running * (1.0 + drafted))
    return prompt_work(prompt, engine, mixed, beside, tokens)


def prompt_work(
    prompt: Prompt, engine: Engine, mixed: list[Kernel], beside: list[Kernel], mixed_tokens: float
) -> dict[str, float]:
    """Seconds one prompt adds to the steps it is read in, beside decoding that goes on anyway.

    mixed: kernels of such a step, with mixed_tokens of prompts in it; beside: of the decoding in it alone.
    """
    law, share = engine.law, prompt.tokens / mixed_tokens
    less = {} if feeding.reads_apart(prompt.model) else moving(by_token(beside), law)
    parts = {
        part: scaled(value - less.get(part, 0.0), share * engine.prefill) for part, value in moving(mixed, law).items()
    }
    parts |= {part: scaled(value, engine.prefill) for part, value in moving(prompt.core, law).items()}
    parts["launches"] = scaled(
        sourced(engine.eager_layer_s, "host time of a layer, not replayed", engine.source, "measured"),
        sourced(prompt.layers * share, "layers and chunks"),
    )
    return parts


def shared_work(prompt: Prompt, plan: Plan, machine: Machine, engine: Engine) -> dict[str, float]:
    """Seconds one prompt takes of a replica that only reads prompts, as many at once as a chunk holds."""
    return prompt_work(prompt, engine, full_chunk(prompt, plan, machine, engine), [], engine.chunk_tokens)


def full_chunk(prompt: Prompt, plan: Plan, machine: Machine, engine: Engine) -> list[Kernel]:
    """Kernels, but those of attention and recurrences, of a chunk that prompts fill."""
    ends = ops.maximum(engine.chunk_tokens / prompt.tokens, 1.0)
    return read_kernels(prompt.model, plan, machine, engine.chunk_tokens, ends)


def prefill(prompt: Prompt, engine: Engine) -> dict[str, float]:
    """Seconds to read one prompt on a replica that does nothing else."""
    law, chunks = engine.law, sourced(prompt.chunks, "chunks")
    read = joined(
        core=moving(prompt.core, law),
        chunks={part: scaled(value, chunks) for part, value in moving(prompt.chunk, law).items()},
    )
    parts = joined(
        read={part: scaled(value, engine.prefill) for part, value in read.items()},
        launches={
            part: scaled(value, chunks)
            for part, value in launching([*prompt.core, *prompt.chunk, *prompt.small], law, engine.replay).items()
        },
    )
    parts["launches"] = scaled(
        sourced(engine.eager_layer_s, "host time of a layer, not replayed", engine.source, "measured"),
        sourced(prompt.layers * prompt.chunks, "layers and chunks"),
    )
    parts["engine"] = scaled(sourced(engine.step_s, "host time of a step", engine.source, "measured"), chunks)
    return parts


def pass_kernels(model: ModelSpec, plan: Plan, machine: Machine, sequences: float, length: float) -> list[Kernel]:
    """Kernels of one pass over whole sequences, or pictures, for a model that does not write."""
    tokens = sequences * length
    found = kernels(lower(model, feeding.feed(model, sequences, length, logits=1.0)), tokens, plan, machine)
    return found + small_kernels(model) + collectives(model, tokens, plan, machine)


def one_pass(found: list[Kernel], engine: Engine) -> dict[str, float]:
    """Seconds of one pass of these kernels."""
    parts = joined(kernels=moving(found, engine.law), launches=launching(found, engine.law, engine.replay))
    parts["engine"] = total({"step": sourced(engine.step_s, "host time of a step", engine.source, "measured")})
    return parts
