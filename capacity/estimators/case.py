"""A question, read and checked: what was asked becomes model, cluster, workload and assumptions."""

from __future__ import annotations

from capacity.catalogue.own import THIS_MACHINE, measured_folder, platform_folder
from capacity.errors import InputError
from capacity.estimators.assumptions import Assumptions, number, one_of
from capacity.estimators.case_cluster import read_cluster
from capacity.formula import sourced
from capacity.record import Record
from capacity.spec.workload import ALL_MODES, INFER, PHASES, TRAINING_MODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.estimators.replica_memory import Footprint
    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster
    from capacity.spec.model import ModelSpec

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
    "hold_steps",
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
    mode = one_of("--mode", request.get("mode"), ALL_MODES)
    if mode == INFER:
        raise InputError(
            "--mode infer is of networks that --module or --onnx name; a language model takes --mode serve"
        )
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
        from capacity.estimators.upkeep_case import protect

        kept["plain cluster"] = cluster
        cluster = protect(cluster, request, folders, assumptions)
    return Case(request, modes, model, shapes, cluster, profile, assumptions, {}, devices, folders, kept)


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
