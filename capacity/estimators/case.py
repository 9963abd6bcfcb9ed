"""A question, read and checked: what was asked becomes model, cluster, workload and assumptions."""

from __future__ import annotations

from capacity import ops
from capacity.catalogue.own import THIS_MACHINE, measured_folder, platform_folder
from capacity.errors import InputError
from capacity.estimators.assumptions import Assumptions, number, one_of
from capacity.estimators.network import NVME_BYTES_PER_S_PER_DEVICE
from capacity.estimators.refusal import refuse
from capacity.estimators.rigs import rig
from capacity.formula import sourced
from capacity.laws.profile import load_profile
from capacity.record import Record, replace
from capacity.spec.workload import MODES, TRAINING_MODES, Precision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.replica_memory import Footprint
    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster, Device
    from capacity.spec.model import ModelSpec

DEFAULT_DEVICE = "h100-sxm"
# Effective bits of a stored weight and the format its products run in; scales of groups included.
FORMATS: dict[str, tuple[float, str]] = {
    "fp32": (32.0, "fp32"),
    "tf32": (32.0, "tf32"),
    "bf16": (16.0, "bf16"),
    "fp16": (16.0, "fp16"),
    "fp8": (8.0, "fp8"),
    "int8": (8.0, "int8"),
    "int4": (4.25, "int4"),
    "nvfp4": (4.5, "fp4"),
    "mxfp4": (4.25, "fp4"),
    # Weights alone in 8 bits, unpacked before they are multiplied.
    "fp8wo": (8.0, "bf16"),
    "int8wo": (8.0, "bf16"),
    # llama.cpp's, at the size of whole files of an 8B model (llama.cpp, examples/quantize).
    "q8_0": (8.5, "int4"),
    "q6_k": (6.56, "int4"),
    "q5_k_m": (5.69, "int4"),
    "q5_k_s": (5.54, "int4"),
    "q5_0": (5.5, "int4"),
    "q4_k_m": (4.85, "int4"),
    "q4_k_s": (4.58, "int4"),
    "q4_0": (4.5, "int4"),
    "iq4_xs": (4.25, "int4"),
    "q3_k_m": (3.91, "int4"),
    "q2_k": (3.0, "int4"),
    "iq2_xxs": (2.06, "int4"),
}
_SPELLINGS = {
    "fp4": "nvfp4",
    "float32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "w4a16": "int4",
    "w8a8": "int8",
    "q4": "int4",
    "q8": "int8",
    "4bit": "int4",
    "8bit": "int8",
}
# Formats that inputs of products may be kept in for the backward pass.
SAVED = ("bf16", "fp16", "fp8")
# What only a loop of reinforcement learning knows.
LOOP = ("algorithm", "group", "updates", "reward", "no_reference", "rollout_devices", "rollout_tp", "rollout_precision")
# What asks for the platform under a run: storage, data, protection, reliability (estimators/platform.py).
PLATFORM_KEYS = (
    "storage",
    "storage_units",
    "redundancy",
    "retention",
    "milestone",
    "checkpoint_interval",
    "snapshot",
    "dataset",
    "epochs",
    "feed",
    "prepare_cores",
    "skew",
    "cores_per_device",
    "host",
    "failures",
    "spares",
    "repair_time",
    "encrypt",
    "cipher",
    "digest",
    "transit",
    "keys",
    "cipher_cores",
    "kv_keep",
)
KEYS = (
    *PLATFORM_KEYS,
    *LOOP,
    "params",
    "model",
    "config",
    "mode",
    "tokens",
    "seq_len",
    "batch",
    "device",
    "devices",
    "nodes",
    "cluster",
    "precision",
    "kv_precision",
    "optimizer",
    "tp",
    "pp",
    "dp",
    "zero",
    "ep",
    "micro_batch",
    "interleave",
    "recompute",
    "cp",
    "cp_kind",
    "etp",
    "replicas",
    "schedule",
    "offload",
    "offload_to",
    "nvme_bandwidth",
    "recompute_share",
    "mtp",
    "saved_precision",
    "teacher",
    "eval_interval",
    "eval_tokens",
    "ramp_tokens",
    "ramp_from",
    "site",
    "prompt_len",
    "output_len",
    "concurrency",
    "lora_rank",
    "price",
    "pue",
    "grid",
    "catalogue",
    "stack",
    "weight_bits",
    "engine",
    "chunk_tokens",
    "attention_dp",
    "length_spread",
    "output_variation",
    "burst",
    "prefix_hit",
    "receive_steps",
    "sampling",
    "request_rate",
    "ttft_slo",
    "tpot_slo",
    "percentile",
    "night",
    "prefill_workers",
    "prefill_tp",
    "prefill_ep",
    "prefill_attention_dp",
    "draft_tokens",
    "acceptance",
    "adapters",
    "host_share",
    "host_bandwidth",
)


class Case(Record):
    """A checked question.

    shapes: other models it may be, when the shape was inferred from a parameter count. footprints: what replicas of
    these models hold, each worked out once for this question (see estimators/replica_memory.py). folders: of the user's own
    catalogue. kept: what the platform's section needs of others (estimators/upkeep.py): under "train" the priced run, its
    values and what keeps it; under "plain cluster" the one whose links nothing protects.
    """

    request: dict[str, Any]
    modes: tuple[str, ...]
    model: ModelSpec
    shapes: tuple[ModelSpec, ...]
    cluster: Cluster
    profile: Profile
    assumptions: Assumptions
    footprints: dict[tuple[object, ...], Footprint]
    devices: float | None = None
    folders: tuple[str, ...] = ()
    kept: dict[str, Any] = {}

    @property
    def on_platform(self) -> bool:
        """Whether the platform under the devices was asked about."""
        return any(name in self.request for name in PLATFORM_KEYS)

    @property
    def site(self) -> tuple[float, float]:
        """Measured over predicted pace of the site's own runs, and how many runs said so; (1, 0) where none did."""
        found: tuple[float, float] = self.request.get("site", (1.0, 0.0))
        return found

    @property
    def site_factor(self) -> float:
        """By how much steps of this site take longer than predicted, as far as its runs are to be believed."""
        factor, runs = self.site
        return sourced(factor, f"site factor of {runs:g} measured runs", "--anchor", "measured") if runs else 1.0

    def number(self, name: str, unit: str = "1", least: float = 0.0, most: float = 1e30, **rules: bool) -> float | None:
        """A number of the request, checked."""
        return number(_option(name), self.request.get(name), unit, least, most, **rules)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def read_case(request: dict[str, Any]) -> Case:
    """Check a request and load what it names; every problem is one line."""
    for key in request:
        if key not in KEYS:
            if key == "target" or key.endswith("_limit"):
                raise InputError(
                    f"{_option(key)} is for --mode deploy, which looks for devices; add it, or leave this out"
                )
            from capacity.errors import UnknownNameError

            raise UnknownNameError("option", key, KEYS)
    # A switch that is off says as little as an option that is not given.
    request = {key: value for key, value in request.items() if value is not None and value is not False}
    folders = tuple(request.get("catalogue", ()))
    if request.get("device") == THIS_MACHINE:
        folders = (*folders, measured_folder())
    elif THIS_MACHINE in (request.get("host"), request.get("storage")):
        folders = (*folders, platform_folder())
    if request.get("mode") in PHASES:
        request = _phase(request)
    assumptions = Assumptions()
    mode = one_of("--mode", request.get("mode"), (*MODES, *PHASES))
    model, shapes = _model(request, folders, assumptions)
    modes: tuple[str, ...] = (mode,) if mode else ("train", "serve")
    if request.get("mtp"):
        model, shapes = _ahead(model, mode), ()
    if mode == "rlhf" or any(name in request for name in LOOP):
        _check_loop(request, mode)
    elif any(name in request for name in ("prompt_len", "output_len", "concurrency")) and mode in TRAINING_MODES:
        raise InputError(f"--prompt-len, --output-len and --concurrency describe serving, not --mode {mode}; drop one")
    cluster, profile, devices = read_cluster(request, folders, assumptions)
    kept: dict[str, Any] = {}
    if "encrypt" in request:
        from capacity.estimators.upkeep import protect

        kept["plain cluster"] = cluster
        cluster = protect(cluster, request, folders, assumptions)
    return Case(request, modes, model, shapes, cluster, profile, assumptions, {}, devices, folders, kept)


# Halves of serving that can be asked for alone.
PHASES = ("decode", "prefill")


def _phase(request: dict[str, Any]) -> dict[str, Any]:
    """One half of serving as a question of the whole: reading prompts is answers of one token, one at a time."""
    if request["mode"] == "decode":
        return request | {"mode": "serve"}
    if "output_len" in request:
        raise InputError(
            "--mode prefill reads prompts and writes one token; leave --output-len out, or use --mode serve"
        )
    return {"concurrency": 1} | request | {"mode": "serve", "output_len": 1}


def _model(
    request: dict[str, Any], folders: tuple[Any, ...], assumptions: Assumptions
) -> tuple[ModelSpec, tuple[ModelSpec, ...]]:
    named = [name for name in ("params", "model", "config") if name in request]
    if len(named) != 1:
        what = "none" if not named else " and ".join(_option(name) for name in named)
        raise InputError(f"give one of --params, --model and --config; {what} given")
    if "params" in request:
        from capacity.importers.shape import plausible_shapes

        params = number("--params", request["params"], "1", 1e6, 1e13)
        assert params is not None
        model, *others = plausible_shapes(params)
        assumptions.note("parameters", params, "1", "user")
        for name, reason in (model.inferred or {}).items():
            assumptions.note(f"model {name}", reason, "", "inferred", "shapes of published models of this size")
        return model, tuple(others)
    if "model" in request:
        from capacity.catalogue import load_model

        model = request["model"] if not isinstance(request["model"], str) else load_model(request["model"], folders)
    else:
        from capacity.importers import read_config

        model = read_config(request["config"])
    assumptions.note("model", model.name, "", "model", model.source)
    for note in model.notes:
        assumptions.note(f"model note {len(assumptions.all())}", note, "", "model", model.source)
    return model, ()


def _check_loop(request: dict[str, Any], mode: str | None) -> None:
    """Refuse options of reinforcement learning elsewhere, and there what it has no use for."""
    if mode != "rlhf":
        given = next(name for name in LOOP if name in request)
        raise InputError(f"{_option(given)} is of --mode rlhf; give that, or leave it out")
    unused = next(
        (
            name
            for name in ("concurrency", "eval_tokens", "eval_interval", "ramp_tokens", "ramp_from")
            if name in request
        ),
        None,
    )
    if unused is not None:
        raise InputError(f"{_option(unused)} has no use in --mode rlhf; leave it out")


def _ahead(model: ModelSpec, mode: str | None) -> ModelSpec:
    """The model with its multi-token-prediction heads, which are trained with it."""
    from capacity.estimators.feeding import with_heads_ahead

    if mode not in TRAINING_MODES:
        raise InputError(
            "--mtp trains multi-token-prediction heads: add --mode train (a server drafts with --draft-tokens)"
        )
    if not any(block.stack == "mtp" for block in model.blocks):
        raise InputError(f"{model.name} has no multi-token-prediction heads; leave --mtp out")
    return with_heads_ahead(model)


def read_cluster(
    request: dict[str, Any], folders: tuple[Any, ...], assumptions: Assumptions
) -> tuple[Cluster, Profile, float | None]:
    """The cluster, its devices' profile, and the number of devices where the user gave one."""
    devices = number("--devices", request.get("devices"), "1", 1.0, 1e6, whole=True)
    nodes = number("--nodes", request.get("nodes"), "1", 1.0, 1e6, whole=True)
    if "cluster" in request:
        if "device" in request:
            raise InputError("--cluster already names its device; leave --device out")
        from capacity.catalogue import load_cluster

        count = 1.0 if nodes is None else nodes
        cluster = load_cluster(request["cluster"], nodes=1 if ops.is_column(count) else int(count), folders=folders)
        cluster = replace(cluster, nodes=whole(count))
        profile = load_profile(cluster.device)
        assumptions.note("cluster", cluster.name, "", "user")
    else:
        name = request.get("device", DEFAULT_DEVICE)
        if name == THIS_MACHINE and devices is None and nodes is None:
            devices = 1.0  # there is one of it
        cluster, profile = rig(name, folders)
        cluster = replace(cluster, nodes=whole(1.0 if nodes is None else nodes))
        tag = "user" if "device" in request else "default"
        assumptions.note(
            "device", cluster.device.name, "", tag, "" if tag == "user" else "the most rented training GPU"
        )
    if devices is not None:
        per_node = cluster.devices_per_node
        if nodes is not None:
            refuse(
                devices != nodes * per_node,
                lambda row: (
                    f"--devices {row(devices):g} and --nodes {row(nodes):g} contradict: a node has {per_node} devices; "
                    "give one"
                ),
            )
        # Part of a node answers for that part of its host.
        part = devices < per_node
        refuse(
            (devices >= per_node) & (devices % per_node != 0.0),
            lambda row: (
                f"--devices {row(devices):g} is not a whole number of nodes of {per_node} {cluster.device.name}; "
                f"use {row(devices) // per_node * per_node:g} or {(row(devices) // per_node + 1) * per_node:g}"
            ),
        )
        cluster = replace(
            cluster,
            devices_per_node=whole(ops.where(part, devices, per_node)),
            nodes=whole(ops.where(part, 1.0, ops.floor(devices / per_node))),
            host_w=ops.where(part, cluster.host_w * devices / per_node, cluster.host_w),
        )
    elif nodes is not None:
        devices = nodes * cluster.devices_per_node
    return _priced(cluster, request, folders, assumptions), profile, devices


def whole(value: float) -> int:
    """A whole number for a screen, or a column of such."""
    return value if ops.is_column(value) else int(value)  # type: ignore[return-value]


def _priced(cluster: Cluster, request: dict[str, Any], folders: tuple[Any, ...], assumptions: Assumptions) -> Cluster:
    stated = {
        "devices_per_node": ("devices a node", cluster.devices_per_node, "1"),
        "link": ("link inside a node", cluster.device.link.bytes_per_s if cluster.device.link else 0.0, "byte/s"),
        "inter": ("network of a device", cluster.inter.bytes_per_s if cluster.inter else 0.0, "byte/s"),
        "host_w": ("host power of a node", cluster.host_w, "W"),
    }
    for name, source in cluster.assumptions.items():
        if name in stated:
            assumptions.note(*stated[name], "default", source)
    usual = cluster.assumptions.get("pue", "as the cluster's entry states")
    pue = assumptions.take("PUE", number("--pue", request.get("pue"), "1", 1.0, 5.0), float(cluster.pue), "1", usual)
    price = number("--price", request.get("price"), "USD/h", 0.0, 1e5)
    known = cluster.usd_per_device_hour if cluster.usd_per_device_hour is not None else cluster.device.usd_per_hour
    if price is not None:
        assumptions.note("price", price, "USD/h", "user")
        known = price
    elif known is not None:
        assumptions.note("price", float(known), "USD/h", "catalogue", getattr(known, "source", "list price"))
    else:
        assumptions.note("price", "unknown: give --price to get money", "", "default")
    grid = _grid(cluster, request, folders, assumptions)
    drives = _drives(cluster, request, assumptions)
    return replace(cluster, pue=pue, usd_per_device_hour=known, grid_g_per_kwh=grid, nvme_bytes_per_s=drives)


def _drives(cluster: Cluster, request: dict[str, Any], assumptions: Assumptions) -> float | None:
    """Bandwidth of a node's drives, where something is offloaded to them."""
    given = number("--nvme-bandwidth", request.get("nvme_bandwidth"), "byte/s", 1e6, 1e13)
    if request.get("offload_to") == "nvme":
        usual = cluster.nvme_bytes_per_s or NVME_BYTES_PER_S_PER_DEVICE * cluster.devices_per_node
        return assumptions.take("drives of a node", given, usual, "byte/s", "a PCIe 4.0 drive a device (samsung2020)")
    if given is not None:
        raise InputError("--nvme-bandwidth is of drives, and nothing is offloaded to them: add --offload-to nvme")
    return cluster.nvme_bytes_per_s


def _grid(cluster: Cluster, request: dict[str, Any], folders: tuple[Any, ...], assumptions: Assumptions) -> float:
    given = request.get("grid")
    if given is None:
        value = cluster.grid_g_per_kwh
        assumptions.note("grid carbon", float(value), "g/kWh", "default", getattr(value, "source", ""))
        return value
    if ops.is_column(given) or isinstance(given, (int, float)) or str(given)[:1].isdigit():
        return assumptions.take("grid carbon", number("--grid", given, "g/kWh", 0.0, 3000.0), 0.0, "g/kWh", "")
    from capacity.catalogue import load_grid

    value = load_grid(str(given), folders)
    assumptions.note("grid carbon", float(value), "g/kWh", "user", value.source)
    return value


def read_format(name: str, value: str | None, fallback: str) -> tuple[str, float, str]:
    """A number format by its usual spellings: its name, effective bits a weight and compute format."""
    word = fallback if value is None else str(value).lower()
    word = _SPELLINGS.get(word, word)
    one_of(name, word, tuple(FORMATS))
    bits, compute = FORMATS[word]
    return word, bits, compute


def training_precision(case: Case) -> tuple[str, Precision]:
    """Mixed precision as it is usually done: 16-bit weights and activations, fp32 gradients and master weights."""
    word, _, compute = read_format("--precision", case.request.get("precision"), default_format(case.cluster.device))
    frozen = case.request.get("mode") == "lora"
    if word in ("int8", "int4", "mxfp4") and not frozen:
        raise InputError(
            f"--precision {word} is for serving or for the frozen weights of lora; train in bf16, fp16, fp8 or nvfp4"
        )
    if frozen and word in ("int8", "int4", "nvfp4", "mxfp4"):
        # A quantised base is unpacked and multiplied in 16 bits (QLoRA).
        return word, Precision(FORMATS[word][0], 16.0, 32.0, 32.0, 16.0, default_format(case.cluster.device))
    if word in ("fp32", "tf32"):
        return word, Precision(32.0, 32.0, 32.0, 32.0, 16.0, compute)
    saved = case.request.get("saved_precision")
    saved_bits = (
        0.0 if saved is None else read_format("--saved-precision", one_of("--saved-precision", saved, SAVED), "bf16")[1]
    )
    return word, Precision(16.0, 16.0, 32.0, 32.0, 16.0, compute, saved_bits)


def default_format(device: Device) -> str:
    """The 16-bit format a device is fast in, or fp32 where it has none."""
    peaks = device.peak_dense_flop_per_s
    return "bf16" if "bf16" in peaks else "fp16" if "fp16" in peaks else "fp32"
