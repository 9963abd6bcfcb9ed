"""Closed forms of a loaded server against a simulation of its scheduler."""

from __future__ import annotations

import pytest
from scheduler import simulate, simulate_pool

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


def held_back(receive, hold):
    """Simulated, and by the closed forms, wait for a scheduler that takes prompts up late."""
    concurrency, prompt, output, step_s, token_s = 32, 1024, 512, 0.01, 2e-5
    load = {"concurrency": concurrency, "prompt": prompt, "output": output, "step_s": step_s, "token_s": token_s}
    _, late = simulate(**load, receive=receive, hold=hold, rounds=30)
    _, at_once = simulate(**load, rounds=30)
    tokens, length = prompt * 0.9, output * 0.9
    joining = schedule.joining_prompts(float(concurrency), length, float(max(receive, hold)))
    # A step that reads prompts is longer than one that reads none.
    pace = step_s + token_s * tokens * concurrency / length
    closed = schedule.look_wait_s(pace, float(receive), float(hold), joining) - 0.5 * pace
    return late - at_once, closed + schedule.read_together_wait_s(token_s * tokens, joining, 8192 / tokens)


@pytest.mark.parametrize(("receive", "hold"), [(10, 0), (30, 0), (1, 10), (1, 20), (1, 40)])
def test_a_scheduler_that_takes_prompts_up_late(receive, hold):
    simulated, closed = held_back(receive, hold)
    assert closed == pytest.approx(simulated, rel=0.25)


def test_prompts_of_one_chunk_end_together():
    assert schedule.read_together_wait_s(1.0, 0.0, 8.0) == 0.0
    assert schedule.read_together_wait_s(1.0, 3.0, 8.0) == 3.0  # all four end after four
    assert schedule.read_together_wait_s(1.0, 3.0, 1.0) == 1.5  # one after the other: 0, 1, 2, 3
    assert schedule.read_together_wait_s(1.0, 3.0, 2.0) == 2.0  # two and two: 1, 1, 3, 3


# From a pool that idles to one that cannot keep up.
POOLS = [
    {"workers": workers, "groups": groups, "requests": requests, "prompt_s": 0.1, "share_s": share, "decoding_s": 4.0}
    for workers, groups in ((1, 1), (1, 4), (3, 1), (4, 8))
    for requests in (4, 32, 256)
    for share in (0.1, 0.03)
]


def test_the_wait_for_a_pool_over_all_loads_is_near():
    ratios = []
    for pool in POOLS:
        loads = (float(pool[name]) for name in ("workers", "groups", "requests"))
        wait = schedule.pool_wait_s(pool["prompt_s"], pool["share_s"], *loads, pool["decoding_s"])
        ratios.append((pool["prompt_s"] + wait) / simulate_pool(**pool))
    ratios.sort()
    assert 0.9 < ratios[len(ratios) // 2] < 1.1
    assert ratios[0] > 0.6
    assert ratios[-1] < 1.5
