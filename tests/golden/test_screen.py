"""The screen, character by character, for an answer whose numbers never change.

After a wanted change: `python tests/golden/test_screen.py` writes the files anew; read the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from capacity.rendering.record import lines
from capacity.rendering.style import Style
from capacity.rendering.text import screen
from capacity.spec.estimate import Assumption, Estimate, Quantity, Section

HERE = Path(__file__).parent


def _quantities(**values):
    return {name: Quantity(name, low, mid, high, unit, note) for name, (low, mid, high, unit, note) in values.items()}


def _exactly(value, unit, note=""):
    return value, value, value, unit, note


TRAINING = Section(
    title="Training",
    verdict="fits: 57.7 GiB of 80.0 GiB per device; 9.31 d, $4.45K; bound by compute",
    fits=True,
    binding="compute",
    setting="8 x H100 SXM (1 node); dp 8, ZeRO-1, micro-batch 1",
    quantities=_quantities(
        step_time=(10.2, 11.4, 13.1, "s", "one optimizer step"),
        run_time=(7.2e5, 8.04e5, 9.3e5, "s", "66,757 steps at 99.1% goodput"),
        tokens_per_s=(80e3, 92e3, 103e3, "1/s", "trained tokens a second, all devices"),
        mfu=(0.42, 0.47, 0.52, "fraction", "model FLOPs over dense peak"),
        device_memory=_exactly(85899345920.0, "byte"),
        flop_per_token=_exactly(44.1e9, "FLOP", "forward and backward"),
        flop_total=_exactly(5.95e21, "FLOP"),
        arithmetic_intensity=(380.0, 410.0, 440.0, "FLOP/byte", ""),
        ridge_point=_exactly(295.4, "FLOP/byte"),
        memory_traffic_per_step=_exactly(10.1e12, "byte"),
        network_traffic_per_step=_exactly(24.5e9, "byte"),
        checkpoint=_exactly(81e9, "byte"),
        dataset=_exactly(540e9, "byte"),
        activations_without_recomputation=_exactly(20.1e9, "byte"),
        activations_with_selective_recomputation=_exactly(13.4e9, "byte"),
        activations_with_full_recomputation=_exactly(1.07e9, "byte"),
        energy=(5.1e9, 5.9e9, 7.0e9, "J", "with hosts and PUE"),
        carbon=(0.55e6, 0.65e6, 0.79e6, "g", "operational"),
        cost=(3900.0, 4450.0, 5120.0, "USD", "rent of the devices"),
        fewest_devices=_exactly(2.0, "1", "that hold it at all"),
    ),
    breakdowns={
        "memory": {
            "weights": 13.5e9,
            "gradients": 13.5e9,
            "optimizer": 10.1e9,
            "activations": 20.1e9,
            "runtime": 4.8e9,
        },
        "time": {"GEMM": 8.1, "attention": 2.0, "element-wise": 1.3},
    },
    alternatives=(
        {"device": "b200", "fits": True, "memory_per_device_bytes": 61e9, "run_time_s": 3.6e5, "cost_usd": 4700.0},
        {"device": "l40s", "fits": False, "memory_per_device_bytes": 61e9, "run_time_s": None, "cost_usd": None},
    ),
)
SERVING = Section(
    title="Serving",
    verdict="DOES NOT FIT: needs 28.0 GiB of 24.0 GiB per device, 5.20 GiB too much; 2 devices hold it",
    fits=False,
    binding="memory",
    setting="1 x RTX 4090; bf16, 16 requests of 1024 + 256 tokens",
    quantities=_quantities(
        ttft=(0.031, 0.037, 0.046, "s", "time to first token"),
        tpot=(0.0068, 0.0079, 0.0094, "s", "time per output token"),
        tokens_per_s=(1700.0, 1990.0, 2300.0, "1/s", "output tokens"),
        device_memory=_exactly(25769803776.0, "byte"),
        kv_bytes_per_token=_exactly(131072.0, "byte"),
        longest_context=_exactly(131072.0, "1"),
        cost_per_million_tokens=(0.28, 0.31, 0.36, "USD", "output tokens"),
    ),
    breakdowns={"memory": {"weights": 13.5e9, "KV cache": 10.7e9, "activations": 1.1e9, "runtime": 4.7e9}},
    warnings=("kernel efficiencies of RTX 4090 are carried from other architectures",),
)
ANSWER = Estimate(
    request={"params": 7e9},
    model={"name": "7B dense decoder", "parameters": 7.0e9, "active_parameters": 6.5e9, "layers": 32.0, "hidden": 4096.0,
           "inferred": ["layers"], "notes": [], "source": "inferred from 7e9 parameters"},
    sections={"train": TRAINING, "serve": SERVING},
    assumptions=(
        Assumption("parameters", 7e9, "1", "user", ""),
        Assumption("price", 2.99, "USD/h", "catalogue", "a price list (2025)"),
        Assumption("PUE", 1.2, "1", "default", "usual data centre"),
        Assumption("model layers", "32, as models of this size have", "", "inferred", "shapes of published models"),
    ),
    warnings=("the shape was inferred from the parameter count alone",),
    sensitivities={"train.cost": {"step time": 0.7, "price": 0.3}, "serve.tpot": {"decode time": 1.0}},
)  # fmt: skip

PAGES = {
    "screen_80.txt": lambda: screen(ANSWER, Style(width=80)),
    "screen_120.txt": lambda: screen(ANSWER, Style(width=120)),
    "screen_50_ascii.txt": lambda: screen(ANSWER, Style(width=50, unicode=False)),
    "screen_80_everything.txt": lambda: screen(ANSWER, Style(width=80), everything=True),
    "plain.txt": lambda: lines(ANSWER),
}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_as_it_was(name):
    assert PAGES[name]() == (HERE / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
