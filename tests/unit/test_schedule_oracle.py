"""Closed forms of a loaded server against a simulation of its scheduler."""

from __future__ import annotations

import pytest
from scheduler import simulate

from capacity.formulas import schedule

BURST = 0.1  # one round of ten comes at once


def closed_forms(*, concurrency, prompt, output, step_s, token_s):
    """What the estimate says of the same load: lengths are nine tenths of the longest on average."""
    tokens, length = prompt * 0.9, output * 0.9
    work = token_s * tokens
    token = schedule.time_per_output_token_s(step_s, work, length, float(concurrency))
    waiting = schedule.prompt_queue_wait_s(work, step_s * length, float(concurrency))
    burst = schedule.burst_wait_s(work, float(concurrency))
    first = schedule.time_to_first_token_s(work + step_s, 0.5 * step_s, waiting, burst, BURST, 0.0)
    return token, first


# From prompts that hardly stall anyone to prompts that take most of the time.
LOADS = [
    {"concurrency": concurrency, "prompt": prompt, "output": output, "step_s": 0.01, "token_s": token_s}
    for concurrency in (4, 16, 64)
    for prompt, output in ((1024, 512), (4096, 512), (4096, 128))
    for token_s in (1e-5, 4e-5)
]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: "-".join(f"{value:g}" for value in load.values()))
def test_time_between_tokens(load):
    simulated, _ = simulate(**load)
    closed, _ = closed_forms(**load)
    assert closed == pytest.approx(simulated, rel=0.08)


def test_times_over_all_loads_are_near_and_unbiased():
    tokens, firsts = [], []
    for load in LOADS:
        simulated, closed = simulate(**load), closed_forms(**load)
        tokens.append(closed[0] / simulated[0])
        firsts.append(closed[1] / simulated[1])
    tokens.sort()
    firsts.sort()
    middle = len(LOADS) // 2
    assert 0.95 < tokens[middle] < 1.05
    assert 0.9 < firsts[middle] < 1.1
    assert firsts[0] > 0.8
    assert firsts[-1] < 1.5


def test_a_lone_client_waits_for_nobody():
    token, first = simulate(concurrency=1, prompt=1000, output=100, step_s=0.01, token_s=1e-5, spread=0.0)
    assert token == pytest.approx(0.01)
    assert first == pytest.approx(0.01 + 1e-5 * 1000)
