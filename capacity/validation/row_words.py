"""What a row's words mean: its device and network, its training software, its number format, the kind of its model."""

from __future__ import annotations

import re

from capacity.catalogue import load_device
from capacity.catalogue.clusters import default_cluster
from capacity.errors import UnknownNameError
from capacity.estimators import feeding
from capacity.laws.profile import load_profile
from capacity.record import replace
from capacity.spec.model import Attention, Experts, Recurrent
from capacity.validation.tables import word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from capacity.laws.profile import Profile
    from capacity.spec.device import Cluster, Device
    from capacity.spec.model import ModelSpec

# What a source, family or note says of the software, most telling first: pattern, name of the stack.
_STACKS = (
    (r"maxtext|paxml|\bpax\b|jax|t5x|levanter|easylm|\btpu|neuron", "jax"),
    (r"llm\.c|llmc", "llm.c"),
    (r"torchtitan|ttitan|olmo-core|olmocore|fms-fsdp", "torchtitan"),
    (r"llm-foundry|llmf|mosaic|\bmpt\b", "fsdp"),
    (r"optimum|habana|gaudi", "habana"),
    (r"deepseek-ai|hai-llm|meta-llama", "megatron-core"),
    (r"nanotron", "nanotron"),
    (r"internevo|internlm/", "internevo"),
    (r"litgpt", "litgpt"),
    (r"nemo|bridge|dgxc|mlperf|mlcommons|simumax|megatron-core|mcore|primus|te 2\.", "megatron-core"),
    (r"megatron-deepspeed|bigscience|bloom|vtrain", "megatron-deepspeed"),
    (
        r"ms-swift|swift|llama-factory|litgpt|qwenlm|transformers|hugging ?face|peft|trl|deeplearningexamples",
        "hugging-face",
    ),
    (r"deepspeed|colossal", "deepspeed"),
    (r"megatron|mt-nlg", "megatron-lm"),
    (r"fsdp|internevo|nanotron|flash-attn", "fsdp"),
)
_DTYPES = (
    (r"nvfp4|fp4", "fp4"),
    (r"rowwise", "bf16"),  # row-wise scales made FP8 no faster than 16 bits in the tables that publish both
    (r"fp8", "fp8"),
    (r"aqt|int8", "int8"),
    (r"tf32", "tf32"),
    (r"^fp32", "fp32"),
    (r"fp16|half|float16", "fp16"),
    (r"bf16|bfloat16", "bf16"),
)
_rigs: dict[str, tuple[Cluster, Profile]] = {}


def rig_of(name: str) -> tuple[Cluster, Profile]:
    """A node of the device a row names, and its profile; raises UnknownNameError where it is in no catalogue."""
    if name not in _rigs:
        device = _device(name)
        _rigs[name] = (default_cluster(device), load_profile(device))
    return _rigs[name]


def _device(name: str) -> Device:
    """The device a cell means: `H100-96GB-HBM2e-500W` is an H100 with 96 GB and a limit of 500 W."""
    plain = re.sub(r"\(.*?\)", "", name).strip()
    words = plain.split("-")
    core = "neuroncore" in words[-1].lower()
    first: UnknownNameError | None = None
    for last in range(len(words), 0, -1):
        for spelling in dict.fromkeys(("-".join(words[:last]), "-".join(words[:last]).rstrip("xX"))):
            try:
                device = load_device(spelling)
            except UnknownNameError as error:
                first = first or error
                continue
            rest = " ".join(words[last:])
            watts = re.search(r"(\d+)\s?W\b", rest)
            if watts:
                device = replace(device, tdp_w=float(watts[1]))
            return _half(device) if core else device
    assert first is not None
    raise first


def _half(device: Device) -> Device:
    """One of the two cores of a chip, where a table counts cores."""
    peaks = {dtype: peak / 2.0 for dtype, peak in device.peak_dense_flop_per_s.items()}
    return replace(
        device,
        peak_dense_flop_per_s=peaks,
        memory_bytes=device.memory_bytes / 2.0,
        memory_bytes_per_s=device.memory_bytes_per_s / 2.0,
        devices_per_node=device.devices_per_node * 2,
    )


def stack_of(row: dict[str, Any]) -> str:
    """The training software a row's family, source and notes speak of."""
    for text in (f"{word(row, 'family')} {word(row, 'source')}".lower(), word(row, "notes").lower()):
        for pattern, name in _STACKS:
            if re.search(pattern, text):
                years = [int(year) for year in re.findall(r"20[12]\d", text)]
                # Its repository has functional tests since 2024.
                recent = name == "megatron-lm" and ("functional_tests" in text or (years and min(years) >= 2024))
                release = _release(text) if name == "megatron-core" else 0.0
                if release >= NEWEST and _FUSED_ON.match(word(row, "device")):
                    return "megatron-core-26.06"
                if 25.0 <= release < 26.0:
                    return "megatron-core-25.11"
                return "megatron-core" if recent else name
    return "fsdp"


# Its kernels that fuse grouped products, activations and casts are written for Blackwell.
_FUSED_ON = re.compile(r"G?B[23]00|$", re.IGNORECASE)
# From this release on Megatron's mixtures of experts run half as long: fused permutation and routing, whole steps as graphs.
NEWEST = 26.06


def _release(text: str) -> float:
    """Year and month of a container a source speaks of: 26.06."""
    found = re.search(r"\(?\b(2[3-9])\.(0[1-9]|1[0-2])\b", text)
    return float(f"{found[1]}.{found[2]}") if found else 0.0


def dtype_of(row: dict[str, Any], device: Device) -> tuple[str, bool]:
    """Format of the products, and whether it was given."""
    text = word(row, "dtype").lower()
    for pattern, name in _DTYPES:
        if re.search(pattern, text):
            return name, True
    return ("bf16" if "bf16" in device.peak_dense_flop_per_s else "fp16"), False


def kind_of(model: ModelSpec) -> str:
    """What kind of model it is, in a word."""
    layers = [layer for block in feeding.layers(model) for layer in block.sublayers]
    stacks = {block.stack for block in feeding.layers(model)}
    if any(isinstance(layer, Recurrent) for layer in layers):
        return "hybrid"
    if any(isinstance(layer, Attention) and layer.latent for layer in layers):
        return "mla"
    if any(isinstance(layer, Experts) for layer in layers):
        return "moe"
    if {"encoder", "decoder"} <= stacks:
        return "encoder-decoder"
    return "dense" if "decoder" in stacks else "encoder" if "encoder" in stacks else "vision"


_ADAPTERS = re.compile(r"(\d+)\s?x\s?(?:(\d+)\s?Gb|OmniPath)", re.IGNORECASE)
_NODE = re.compile(r"(\d+)\s?Gbps/node", re.IGNORECASE)
_INSIDE = re.compile(r"intra\s?(\d+)\s?GB/s", re.IGNORECASE)
_OMNI_PATH_GBPS = 100.0


def wired(row: dict[str, Any], cluster: Cluster) -> Cluster:
    """The cluster with the network its notes state: `4x100Gb RoCE/node`, `800 Gbps/node`, `intra 150 GB/s`."""
    notes = word(row, "notes")
    adapters, node, inside = _ADAPTERS.search(notes), _NODE.search(notes), _INSIDE.search(notes)
    gbps = float(node[1]) if node else float(adapters[1]) * float(adapters[2] or _OMNI_PATH_GBPS) if adapters else 0.0
    full = max(cluster.device.devices_per_node, 1)
    if gbps and cluster.inter is not None:
        cluster = replace(cluster, inter=replace(cluster.inter, bytes_per_s=gbps * 1e9 / 8.0 / full))
    if inside and cluster.device.link is not None:
        link = replace(cluster.device.link, bytes_per_s=float(inside[1]) * 1e9)
        cluster = replace(cluster, device=replace(cluster.device, link=link))
    return cluster
