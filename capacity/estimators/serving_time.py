"""How long a decode step and a prompt take on one replica, part by part."""

from __future__ import annotations

from capacity.estimators import feeding
from capacity.estimators.lowering import Tokens, lower
from capacity.estimators.work import Kernel, collectives, kernels, small_kernels
from capacity.formula import scaled, sourced, total
from capacity.laws.step import kernel_time_s

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    running = max(running / plan.pp, 1.0)
    apart = feeding.reads_apart(model)
    tokens = feeding.next_token(running, prompt_len, written, apart=apart)
    if drafted:
        # Drafts are checked in one pass: as many sequences of one token each, which read one cache together.
        checked = feeding.next_token(running * (1.0 + drafted), prompt_len, written, apart=apart)
        once = kernels(lower(model, tokens), running, plan, machine)
        many = kernels(lower(model, checked), running * (1.0 + drafted), plan, machine)
        found = [a if a.part in _BY_SEQUENCE else b for a, b in zip(once, many, strict=True)]
        running *= 1.0 + drafted
    else:
        found = kernels(lower(model, tokens), running, plan, machine)
    return found + small_kernels(model) + collectives(model, running, plan, machine)


def seconds(found: list[Kernel], law: StepLaw, replay: float, *, launched: bool = True) -> dict[str, float]:
    """Seconds by part of the breakdown."""
    parts: dict[str, dict[str, float]] = {}
    for kernel in found:
        terms = parts.setdefault(kernel.part, {})
        name = kernel.name if kernel.name not in terms else f"{kernel.name} ({len(terms) + 1})"
        moving = kernel_time_s(
            sourced(kernel.memory_s, "bytes at the datasheet's bandwidth"),
            sourced(kernel.work_s, "work at the dense peak"),
            sourced(kernel.tile_s, "a row of padding"),
            kernel.rows,
            sourced(kernel.unpack_s, "a vector operation for each packed weight"),
            sourced(law.bandwidth(kernel.bandwidth), f"share of bandwidth, {kernel.bandwidth}", law.source, "measured"),
            sourced(law.peak(kernel.peak), f"share of peak, {kernel.peak}", law.source, "measured"),
            law.tile_rows,
            law.unpack(kernel.unpack),
        )
        terms[name] = moving
        if launched and kernel.launches:
            each = sourced(law.launch(kernel.launch) * replay, f"launch, {kernel.launch}", law.source, "measured")
            terms[f"{name}, launched"] = scaled(each, sourced(kernel.launches, "launches"))
    return {part: total(terms) for part, terms in parts.items()}


def decode_step(
    model: ModelSpec,
    plan: Plan,
    machine: Machine,
    engine: Engine,
    running: float,
    prompt_len: float,
    written: float,
    drafted: float = 0.0,
    sampled: bool = True,
) -> dict[str, float]:
    """Seconds of one step that gives each of `running` sequences of an attention rank its next token."""
    found = decode_kernels(model, plan, machine, running, prompt_len, written, drafted)
    parts = seconds(found, engine.law, engine.replay)
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
    """Kernels of reading prompts, apart by what they grow with.

    core: those of one whole prompt's attention and recurrences. mixed and beside: the others, of a step that reads
    `mixed_tokens` of prompts beside the decoding of `running` sequences, and of that decoding alone. chunk and one: of a
    step that reads chunk_tokens of prompts and nothing else, and of one token.
    """

    __slots__ = ("beside", "chunk", "chunk_tokens", "core", "mixed", "mixed_tokens", "one", "tokens")

    def __init__(
        self,
        model: ModelSpec,
        plan: Plan,
        machine: Machine,
        tokens: float,
        past: float,
        chunk_tokens: float,
        running: float,
        output_len: float,
    ) -> None:
        self.tokens = tokens
        self.chunk_tokens = min(chunk_tokens, tokens)
        # In steady state running / output_len requests end each step, and as many prompts take their places.
        self.mixed_tokens = min(chunk_tokens, tokens * max(1.0, min(running, running / output_len)))
        whole = _fed(model, tokens, past)
        self.core = [one for one in kernels(lower(model, whole), tokens, plan, machine) if one.part in _BY_SEQUENCE]
        self.mixed = self._rest(model, plan, machine, self.mixed_tokens + running)
        self.beside = self._rest(model, plan, machine, running)
        self.chunk = self._rest(model, plan, machine, self.chunk_tokens)
        self.one = self._rest(model, plan, machine, 1.0)

    @staticmethod
    def _rest(model: ModelSpec, plan: Plan, machine: Machine, tokens: float) -> list[Kernel]:
        table = lower(model, _fed(model, tokens, 0.0))
        found = [one for one in kernels(table, tokens, plan, machine) if one.part not in _BY_SEQUENCE]
        return found + collectives(model, tokens, plan, machine)


def _fed(model: ModelSpec, tokens: float, past: float) -> Tokens:
    fed = feeding.prompt(model, 1.0, tokens)
    return fed if not past else Tokens(sequences=1.0, queries=tokens, past=past, logits=1.0)


def prompt_work(model: ModelSpec, prompt: Prompt, engine: Engine) -> dict[str, float]:
    """Seconds one prompt adds to the steps it is read in, beside decoding that goes on anyway."""
    return _added(model, prompt, engine, prompt.mixed, prompt.beside, prompt.mixed_tokens)


def _added(
    model: ModelSpec, prompt: Prompt, engine: Engine, chunk: list[Kernel], without: list[Kernel], chunk_tokens: float
) -> dict[str, float]:
    """Seconds a prompt adds to steps that read chunk_tokens each: kernels with its chunk less those without."""
    law, replay = engine.law, engine.replay
    share = prompt.tokens / chunk_tokens
    less = seconds(without, law, replay, launched=False)
    parts = {
        name: scaled(value - less.get(name, 0.0), share * engine.prefill)
        for name, value in seconds(chunk, law, replay, launched=False).items()
    }
    for name, value in seconds(prompt.core, law, replay, launched=False).items():
        parts[name] = scaled(value, engine.prefill)
    parts["launches"] = scaled(
        sourced(engine.eager_layer_s, "host time of a layer, not replayed", engine.source, "measured"),
        sourced(feeding.layer_count(model) * share, "layers and chunks"),
    )
    return parts


def prefill(model: ModelSpec, engine: Engine, prompt: Prompt) -> dict[str, float]:
    """Seconds to read one prompt on a replica that does nothing else."""
    parts = _added(model, prompt, engine, prompt.chunk, prompt.one, prompt.chunk_tokens)
    chunks = prompt.tokens / prompt.chunk_tokens
    alone = seconds(prompt.one + small_kernels(model), engine.law, engine.replay)
    for name, value in alone.items():
        parts[name] = total({"beside": parts.get(name, 0.0), "weights and launches": scaled(value, chunks)})
    parts["engine"] = scaled(sourced(engine.step_s, "host time of a step", engine.source, "measured"), chunks)
    return parts


def one_pass(
    model: ModelSpec, plan: Plan, machine: Machine, engine: Engine, sequences: float, length: float
) -> dict[str, float]:
    """Seconds of one pass over whole sequences, or pictures, for a model that does not write."""
    tokens = sequences * length
    found = kernels(lower(model, feeding.feed(model, sequences, length, logits=1.0)), tokens, plan, machine)
    found += small_kernels(model) + collectives(model, tokens, plan, machine)
    parts = seconds(found, engine.law, engine.replay)
    parts["engine"] = total({"step": sourced(engine.step_s, "host time of a step", engine.source, "measured")})
    return parts
