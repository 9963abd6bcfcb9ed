"""A small event simulation of continuous batching, as an oracle for the closed forms.

Steps follow one another: each gives every decoding request a token and works on up to `chunk` tokens of waiting prompts,
first come first served. A closed loop of `concurrency` clients sends `rounds` requests each, the first all at once; lengths are
even between `1 - spread` and 1 of the longest. A step takes `step_s` and `token_s` for each token of prompts in it. New requests
are taken up every `receive` steps, or once the first of them was held for `hold` steps; at once where nothing else is to do.

`simulate_pool` is the same of workers that only read prompts, whose groups read together.
"""

from __future__ import annotations

import heapq
import random


def simulate(
    *,
    concurrency: int,
    prompt: int,
    output: int,
    step_s: float,
    token_s: float,
    chunk: int = 8192,
    rounds: int = 10,
    spread: float = 0.2,
    seed: int = 1,
    receive: int = 1,
    hold: int = 0,
) -> tuple[float, float]:
    """Mean time per output token and mean time to the first token."""
    draw = random.Random(seed)

    def length(longest: int) -> int:
        return max(round(longest * (1.0 - spread * draw.random())), 2)

    waiting = [(0.0, length(prompt), length(output)) for _ in range(concurrency)]
    left_to_send = concurrency * (rounds - 1)
    decoding: list[list[float]] = []  # arrival, first token, tokens left, tokens in all
    reading: list[list[float]] = []  # arrival, prompt tokens left, output
    now, firsts, paces, steps, first_seen = 0.0, [], [], 0, 0
    while waiting or reading or decoding:
        steps += 1
        first_seen = first_seen if waiting else steps
        idle = not (reading or decoding)
        looks = idle or (steps % receive == 0 and steps - first_seen >= hold)
        while looks and waiting and len(reading) + len(decoding) < concurrency:
            arrival, tokens, answer = waiting.pop(0)
            reading.append([arrival, float(tokens), float(answer)])
        room, worked = float(chunk), 0.0
        for one in reading:
            part = min(one[1], room)
            one[1] -= part
            room -= part
            worked += part
        now += step_s + token_s * worked
        for one in decoding:
            one[2] -= 1.0
        done = [one for one in decoding if one[2] <= 0.0]
        decoding = [one for one in decoding if one[2] > 0.0]
        for one in [one for one in reading if one[1] <= 0.0]:
            firsts.append(now - one[0])
            decoding.append([one[0], now, one[2] - 1.0, one[2]])
        reading = [one for one in reading if one[1] > 0.0]
        for one in done:
            paces.append((now - one[1]) / (one[3] - 1.0))
            if left_to_send:
                left_to_send -= 1
                waiting.append((now, length(prompt), length(output)))
    return sum(paces) / len(paces), sum(firsts) / len(firsts)


def simulate_pool(
    *, workers: int, groups: int, requests: int, prompt_s: float, share_s: float, decoding_s: float, rounds: int = 30
) -> float:
    """Mean time from arrival to the end of reading, over all requests but those of the first rounds.

    A worker reads up to as many prompts a group as take no longer than prompt_s together, share_s each, all groups at once.
    """
    draw = random.Random(1)
    each = max(int(prompt_s // share_s), 1)
    arrivals = [(draw.random() * decoding_s, 0) for _ in range(requests)]
    free, waits = [0.0] * workers, []
    heapq.heapify(arrivals)
    while arrivals:
        worker = min(range(workers), key=free.__getitem__)
        now = max(free[worker], arrivals[0][0])
        taken = []
        while arrivals and len(taken) < each * groups and arrivals[0][0] <= now:
            taken.append(heapq.heappop(arrivals))
        fullest = -(-len(taken) // groups)
        done = now + max(prompt_s, fullest * share_s)
        free[worker] = done
        for arrival, turn in taken:
            if turn > rounds // 3:
                waits.append(done - arrival)
            if turn < rounds:
                heapq.heappush(arrivals, (done + decoding_s * (0.8 + 0.4 * draw.random()), turn + 1))
    return sum(waits) / len(waits)
