"""What a user says of a service, and what is taken where he does not: the load, the engine, formats and habits."""

from __future__ import annotations

from math import inf

from capacity import ops
from capacity.errors import InputError
from capacity.estimators import feeding, layout
from capacity.estimators.assumptions import one_of
from capacity.estimators.checkpoint import checkpoint_formats, is_gguf
from capacity.estimators.formats import FORMATS, default_format, read_format
from capacity.estimators.pricing import processor
from capacity.formulas import schedule
from capacity.laws.engine import load_engine, on_device
from capacity.record import Record, replace
from capacity.spec.plan import Plan
from capacity.spec.workload import Precision, Workload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.case import Case
    from capacity.estimators.serving_offload import Offload
    from capacity.laws.engine import Engine
    from capacity.spec.device import Device

# Machines of one person, where models are run for one user and in 4 bits.
PERSONAL = ("consumer", "laptop", "embedded", "phone")


class Service(Record):
    """How requests are served, whatever the device: engine, formats and what a load looks like.

    word: the weight format's name; formats: by precision group; kv_format, kv_bytes: of the cache. spread: lengths lie
    between 1 - spread and 1 of the longest; variation: deviation of an answer's length over its mean. burst: share of
    requests that arrive together at the start, and of those that still do a round later. prefix_hit: share of prompt
    tokens whose keys are cached already. drafted: tokens proposed for each checked one; accepted: of these
    on average. receive_steps: decode steps after which the engine looks for new requests; hold_steps: that it holds them then, so
    that more are read together. sampled: tokens
    are drawn, not the likeliest taken.
    prefill_workers: replicas that only read prompts, laid out by prefill_plan, and hand the cache over (0: none).
    offload: what the host keeps. adapters: low-rank adapters of adapter_rank that requests choose among (0: none).
    """

    engine: Engine
    word: str
    formats: dict[str, tuple[str, float]]
    kv_format: str
    kv_bytes: float
    spread: float = 0.2
    variation: float = 0.0
    burst: float = 0.14
    prefix_hit: float = 0.0
    drafted: float = 0.0
    accepted: float = 0.0
    receive_steps: float = 1.0
    hold_steps: float = 0.0
    sampled: bool = True
    prefill_workers: float = 0.0
    prefill_plan: Plan = Plan()
    offload: Offload | None = None
    adapters: float = 0.0
    adapter_rank: float = 0.0

    @property
    def widths(self) -> dict[str, float]:
        """Stored bytes of a weight by precision group."""
        return {group: width for group, (_, width) in self.formats.items()}

    def usable_bytes(self, device: Device) -> float:
        """What the engine takes of a device."""
        return self.engine.memory_share * device.open_bytes

    def room_for(self, device: Device, parts: float) -> float:
        """Bytes of one device that are left for requests beside its fixed parts."""
        left = self.usable_bytes(device) - parts - self.engine.runtime_bytes
        return ops.maximum(left * self.engine.free_share, 0.0)

    @property
    def pooled(self) -> bool:
        """Whether prompts have workers of their own."""
        return ops.anywhere(self.prefill_workers)


def read_service(case: Case) -> tuple[Workload, Service]:
    """The load, and how it is served."""
    take, note = case.assumptions.take, case.assumptions.note
    generates, longest = feeding.generates(case.model), feeding.longest(case.model)
    longest = longest if ops.anywhere(longest) else inf
    usual = ops.minimum(1024.0, ops.floor(longest * 0.75)) if generates else ops.minimum(512.0, longest)
    prompt = take(
        "prompt length",
        case.number("prompt_len", "1", 1.0, 1e8, whole=True),
        usual,
        "1",
        "a usual chat turn" if generates else "what the model reads at once",
    )
    output = 0.0
    if generates:
        output = take(
            "output length",
            case.number("output_len", "1", 1.0, 1e7, whole=True),
            ops.minimum(256.0, longest - usual),
            "1",
            "a usual answer",
        )
    personal = case.cluster.device.segment in PERSONAL
    concurrency = take(
        "concurrency",
        case.number("concurrency", "1", 1.0, 1e6, whole=True),
        1.0 if personal else 16.0,
        "1",
        "one user" if personal else "requests in flight per replica",
    )
    word = _weight_format(case, personal)
    device = case.cluster.device
    engine = on_device(load_engine(_engine_name(case, word, personal), processor(device)), device)
    chunk = case.number("chunk_tokens", "1", 1.0, 1e7, whole=True)
    if chunk is not None:
        engine = replace(engine, chunk_tokens=chunk)
        note("prompt tokens of a step", chunk, "1", "user")
    note(
        "engine",
        f"{engine.name} {engine.versions}",
        "",
        "user" if "engine" in case.request else "default",
        engine.source,
    )
    bits = case.number("weight_bits", "1", 1.0, 32.0)
    formats = checkpoint_formats(case.model, word, bits, as_gguf="llama.cpp" in engine.id)
    cache = case.request.get("kv_precision")
    cache, kv_bits, _ = read_format("--kv-precision", cache, _cache_format(case, engine, formats))
    tag = "user" if "kv_precision" in case.request else "default"
    note("KV cache precision", cache, "", tag, "" if tag == "user" else f"{engine.name}'s own")
    service = Service(
        engine=engine,
        word=word,
        formats=formats,
        kv_format={"fp8": "fp8", "int8": "int8", "int4": "int4", "nvfp4": "int4"}.get(cache, "bf16"),
        kv_bytes=kv_bits / 8.0,
        offload=_offload(case, engine),
        **_habits(case),
    )
    precision = Precision(service.formats[""][1] * 8.0, 16.0, 0.0, 0.0, kv_bits, FORMATS[word][1])
    workload = Workload(
        mode="serve", prompt_len=prompt, output_len=output, concurrency=concurrency, precision=precision
    )
    return workload, service


def _offload(case: Case, engine: Engine) -> Offload | None:
    if not any(name in case.request for name in ("offload", "host_share", "host_bandwidth")):
        return None
    from capacity.estimators.serving_offload import read_offload

    return read_offload(case, engine)


def _cache_format(case: Case, engine: Engine, formats: dict[str, tuple[str, float]]) -> str:
    """What an engine keeps keys and values in where nothing is said: by the weights' format, or by what the device has."""
    narrow = min(formats.values(), key=lambda one: one[1])[0]
    found = engine.cache_format.get(narrow)
    if found is None and narrow != "bf16" and "fp4" in case.cluster.device.peak_dense_flop_per_s:
        found = engine.cache_format.get("blackwell")
    return found or "bf16"


def _weight_format(case: Case, personal: bool) -> str:
    asked = case.request.get("precision")
    published = case.model.weight_format
    if asked is None and published:
        case.assumptions.note("serving precision", published, "", "model", "the checkpoint's own quantisation")
        return published
    fallback = "int4" if personal and feeding.generates(case.model) else default_format(case.cluster.device)
    word, bits, _ = read_format("--precision", asked, fallback)
    kept = "embeddings, head and router kept at 16 bits" if bits < 16.0 and not is_gguf(word) else ""
    case.assumptions.note("serving precision", word, "", "user" if asked else "default", kept)
    return word


def _engine_name(case: Case, word: str, personal: bool) -> str:
    given = case.request.get("engine")
    if given is not None:
        return str(given)
    alone = personal or case.cluster.device.kind in ("CPU", "Apple", "edge") or is_gguf(word)
    return "llama.cpp" if alone and feeding.generates(case.model) else "vllm"


def _habits(case: Case) -> dict[str, Any]:
    """What a load looks like beside lengths and number, where the user says so."""
    take = case.assumptions.take
    found: dict[str, Any] = {
        "spread": take("length spread", case.number("length_spread", "1", 0.0, 1.0), 0.2, "1", "lengths from 0.8 to 1"),
        "variation": _or(case.number("output_variation", "1", 0.0, 3.0), 0.0),
        "burst": take(
            "opening burst",
            case.number("burst", "1", 0.0, 1.0),
            0.14,
            "1",
            "one round of ten comes at once and is slow to come apart",
        ),
        "prefix_hit": _or(case.number("prefix_hit", "1", 0.0, 1.0), 0.0),
        "receive_steps": _or(case.number("receive_steps", "1", 1.0, 1000.0, whole=True), 1.0),
        "hold_steps": _or(case.number("hold_steps", "1", 0.0, 1000.0, whole=True), 0.0),
    }
    found["sampled"] = one_of("--sampling", case.request.get("sampling"), ("sampled", "greedy")) != "greedy"
    workers = case.number("prefill_workers", "1", 1.0, 4096.0, whole=True)
    if workers is not None:
        sizes = {
            name: _or(case.number(f"prefill_{name}", "1", 1.0, 4096.0, whole=True), 1.0)
            for name in ("tp", "ep", "attention_dp")
        }
        pool = Plan(tp=sizes["tp"], ep=sizes["ep"], attention_dp=sizes["attention_dp"])
        layout.check_heads(case.model, pool.tp)
        layout.check_experts(case.model, pool)
        found |= {"prefill_workers": workers, "prefill_plan": pool}
    elif any(f"prefill_{name}" in case.request for name in ("tp", "ep", "attention_dp")):
        raise InputError("a layout of prefill workers is given without --prefill-workers: say how many there are")
    adapters = case.number("adapters", "1", 1.0, 1e5, whole=True)
    if adapters is not None:
        rank = take(
            "rank of adapters", case.number("lora_rank", "1", 1.0, 4096.0, whole=True), 16.0, "1", "a usual rank"
        )
        found |= {"adapters": adapters, "adapter_rank": rank}
        case.assumptions.note("adapters", adapters, "1", "user", "of attention and dense layers, in 16 bits")
    drafted = case.number("draft_tokens", "1", 1.0, 64.0, whole=True)
    if drafted is not None:
        rate = take(
            "acceptance", case.number("acceptance", "1", 0.0, 0.999), 0.7, "1", "of a draft token, a usual rate"
        )
        found |= {"drafted": drafted, "accepted": schedule.tokens_per_step(drafted, rate) - 1.0}
        case.assumptions.note("draft tokens", drafted, "1", "user")
    elif "acceptance" in case.request:
        raise InputError("--acceptance is given without --draft-tokens: say how many tokens are drafted")
    return found


def _or(given: float | None, usual: float) -> float:
    return usual if given is None else given
