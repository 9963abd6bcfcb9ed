"""Inference engines as small named profiles: what their documentation says, and the few numbers fitted for them."""

from __future__ import annotations

import os

from capacity.errors import FileFormatError, UnknownNameError
from capacity.laws.profile import FITTED
from capacity.laws.step import step_law
from capacity.record import Record, replace
from capacity.toml_file import read_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.laws.step import StepLaw
    from capacity.spec.device import Device

ENGINES = os.path.join(os.path.dirname(__file__), "engines")


class Engine(Record):
    """An inference engine.

    Knobs, from its documentation: chunk_tokens: tokens of prompt a step works on at most; memory_share: of the device
    it takes, runtime_bytes of that for itself, and free_share of what weights leave for the cache;
    weight_copies: how often it holds narrow weights, as stored and as its kernels want them; reserved: share of an answer's cache set aside when a request is
    admitted; prefill_first: prompts stop decoding rather than run beside it; splits_layers: several devices hold
    layers each and work in turn; half_accumulate, warp_products, vector_products,
    unpacks, wide_copies, scores, expands, loops: see estimators/work.py; cache_format: of keys and values where nothing is said,
    by weight format ("blackwell": of any quantised weights on devices that multiply 4-bit floats). host_launches: each kernel is
    launched by the host as it goes, at the pace of one of its cores.

    Fitted: law, its kernels; step_s and sequence_s: host time of a step and of each sequence in it, and
    sampled_sequence_s more where tokens are drawn rather than the likeliest taken; replay: share of
    a kernel's launch that is left in a replayed graph; prefill: multiplies the work of prompts; eager_layer_s: host
    time of a layer in a step that is not replayed; front_end_s: until a prompt reaches the
    scheduler; front_end_token_s: of each of its tokens; hand_over_s: until a worker that decodes takes over from one that reads prompts.
    """

    id: str
    name: str
    versions: str
    source: str
    law: StepLaw
    law_name: str
    chunk_tokens: float
    memory_share: float
    free_share: float
    runtime_bytes: float
    weight_copies: float
    reserved: float
    prefill_first: bool
    splits_layers: bool
    half_accumulate: str
    warp_products: bool
    vector_products: bool
    unpacks: bool
    wide_copies: bool
    scores: bool
    expands: bool
    loops: bool
    host_launches: bool
    cache_format: dict[str, str]
    step_s: float
    sequence_s: float
    sampled_sequence_s: float
    replay: float
    prefill: float
    eager_layer_s: float
    front_end_s: float
    front_end_token_s: float
    hand_over_s: float = 0.0
    base: Engine | None = None


def on_device(engine: Engine, device: Device) -> Engine:
    """An engine with the fixed times it has on a device.

    1. Small kernels take cycles: their time goes as one over the clock, where both clocks are known.
    2. What the host launches one by one goes as one over the pace of a core of the device's usual host.
    3. Processor cores meet after each part of a layer: the more there are, the longer.
    """
    engine = engine.base or engine
    law, factor, meeting = engine.law, 1.0, 0.0
    step_s, eager_layer_s = engine.step_s, engine.eager_layer_s
    if engine.host_launches:
        factor = 1.0 / host_pace(device)
        step_s, eager_layer_s = step_s * factor, eager_layer_s * factor
    else:
        factor = law.clock_hz / device.clock_hz if law.clock_hz and device.clock_hz else 1.0
        meeting = law.launch_s.known.get("core", 0.0) * (device.multiprocessors or 0.0)
    if factor == 1.0 and not meeting:
        return engine
    return replace(engine, law=law.paced(factor, meeting), base=engine, step_s=step_s, eager_layer_s=eager_layer_s)


# Single-thread speed of the processors that stand beside devices of a year and segment: of server processors it has grown by 9 % a
# year (PassMark: EPYC 7742 of 2019 2.1, Xeon 8480+ of 2023 2.9 thousand), desktop ones of the same year are 1.6 times as fast
# (Ryzen 9 7950X of 2022: 4.3), boards with cores of their own half as fast (Cortex-A78AE).
HOST_YEAR, HOST_GROWTH, HOST_DESKTOP, HOST_BOARD = 2020, 1.09, 1.6, 0.5


def host_pace(device: Device) -> float:
    """How fast a core of the host beside a device is, relative to that of a server of HOST_YEAR."""
    beside = {"data-centre": 1.0, "embedded": HOST_BOARD}.get(device.segment, HOST_DESKTOP)
    pace: float = beside * HOST_GROWTH ** (device.year - HOST_YEAR)
    return pace


def engine_names() -> tuple[str, ...]:
    """Ids of all engines, sorted."""
    return tuple(sorted(name.removesuffix(".toml") for name in os.listdir(ENGINES) if name.endswith(".toml")))


_known: dict[tuple[str, str], Engine] = {}


def load_engine(name: str, kind: str = "GPU") -> Engine:
    """An engine by its id or a usual spelling of it, as it runs on a kind of device. Raises UnknownNameError.

    `FILE.toml:ENGINE` takes what `capacity calibrate serving` fitted for it.
    """
    file, colon, own = name.rpartition(":")
    if colon and file.endswith(".toml"):
        return _from_file(file, load_engine(own, kind))
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if (key, kind) not in _known:
        if key not in engine_names():
            known = {alias: one for one in engine_names() for alias in read_toml(_path(one)).get("aliases", ())}
            if key not in known:
                raise UnknownNameError("engine", name, engine_names())
            key = known[key]
        _known[key, kind] = _engine(key, read_toml(_path(key)), kind)
    return _known[key, kind]


def _from_file(file: str, engine: Engine) -> Engine:
    """An engine with the law and the host times of a file."""
    try:
        table = read_toml(file, keep=False)
        own = table["engines"][engine.id]
        return replace(engine, law=law_of(table["laws"][own["law"]]), **_host_times(own))
    except (OSError, ValueError) as error:
        raise FileFormatError(f"--engine {file} cannot be read: {error}") from None
    except KeyError as error:
        raise FileFormatError(
            f"--engine {file} holds nothing of {engine.id} (no {error}); `capacity calibrate serving` writes such files"
        ) from None


def _host_times(own: dict[str, Any]) -> dict[str, float]:
    return {
        "step_s": own["step_ms"] * 1e-3,
        "sequence_s": own["sequence_us"] * 1e-6,
        "replay": own.get("replay", 1.0),
        "prefill": own.get("prefill", 1.0),
        "eager_layer_s": own.get("eager_layer_us", 0.0) * 1e-6,
        "front_end_s": own.get("front_end_ms", 0.0) * 1e-3,
        "front_end_token_s": own.get("front_end_token_us", 0.0) * 1e-6,
        "hand_over_s": own.get("hand_over_ms", 0.0) * 1e-3,
    }


def _path(name: str) -> str:
    return os.path.join(ENGINES, f"{name}.toml")


def law_of(table: dict[str, Any]) -> StepLaw:
    """A step law from its table of dotted names."""
    return step_law(
        {name: value * 1e-6 for name, value in table["launch_us"].items()},
        table["share_of_bandwidth"],
        table["share_of_peak"],
        table.get("unpack_operations", {}),
        table.get("tile_rows", 64.0),
        f"{table['source']} ({table['date']})",
        table["clock_ghz"] * 1e9 if "clock_ghz" in table else None,
        table["core_gb_per_s"] * 1e9 if "core_gb_per_s" in table else None,
    )


def fitted_engines() -> dict[str, Any]:
    """The fitted tables: laws of kernels, host times of engines, reachable shares of memory bandwidth."""
    if not _fitted:
        for name in ("served", "single", "reach"):
            for part, table in read_toml(os.path.join(FITTED, f"{name}.toml")).items():
                _fitted[part] = _fitted.get(part, {}) | table
    return _fitted


_fitted: dict[str, Any] = {}


def engine_data(key: str, kind: str) -> dict[str, Any]:
    """What was fitted for an engine on a kind of device: its law's name and its host times."""
    fitted = fitted_engines()
    own: dict[str, Any] | None = fitted["engines"].get(read_toml(_path(key)).get("on", {}).get(kind, key))
    if own is None or own["law"] not in fitted["laws"]:
        raise FileFormatError(f"no fitted parameters of the engine {key} on a {kind}")
    return own


def _engine(key: str, data: dict[str, Any], kind: str) -> Engine:
    fitted, own = fitted_engines(), engine_data(key, kind)
    scheduler, habits = data["scheduler"], data.get("kernels", {})
    return Engine(
        id=key,
        name=data["name"],
        versions=data["versions"],
        source=data["source"],
        law=law_of(fitted["laws"][own["law"]]),
        law_name=own["law"],
        chunk_tokens=float(scheduler["chunk_tokens"]),
        memory_share=float(scheduler["memory_share"]),
        free_share=float(scheduler.get("free_share", 1.0)),
        runtime_bytes=float(scheduler.get("runtime_gb", 0.0)) * 1e9,
        weight_copies=float(
            scheduler.get("weight_copies_cpu" if kind == "CPU" else "", scheduler.get("weight_copies", 1.0))
        ),
        reserved=float(scheduler.get("reserved", 1.0)),
        prefill_first=bool(scheduler.get("prefill_first", False)),
        splits_layers=bool(scheduler.get("splits_layers", False)),
        half_accumulate=str(habits.get("half_accumulate", "")),
        warp_products=bool(habits.get("warp_products", False)),
        vector_products=bool(habits.get("vector_products", False)),
        unpacks=kind == "GPU" and bool(habits.get("unpacks", False)),
        wide_copies=kind == "CPU" and bool(habits.get("wide_copies", False)),
        scores=kind != "CPU" and bool(habits.get("scores", False)),
        expands=bool(habits.get("expands", False)),
        loops=bool(habits.get("loops", False)),
        host_launches=kind != "CPU" and bool(data.get("host", {}).get("launches", False)),
        cache_format=dict(data.get("cache_format", {})),
        sampled_sequence_s=float(data.get("host", {}).get("sampled_sequence_us", 0.0)) * 1e-6,
        **_host_times(own),  # type: ignore[arg-type]
    )
