"""How long a batch of answers takes to write, where all of them must be there before they are learnt from."""

from capacity import ops
from capacity.formula import formula


@formula(unit="1", symbol="l_long", cite="kleinrock1975")
def longest_answer_len(output_len: float, variation: float, answers: float) -> float:
    """Tokens of the longest of `answers`.

    1. The largest of n normal draws lies about sqrt(2 ln n) deviations above their mean; variation: deviation over mean.
    Valid for: more than one answer; real lengths have longer tails and a limit.
    """
    spread: float = (2.0 * ops.log(ops.maximum(answers, 1.0))) ** 0.5
    return output_len * (1.0 + variation * spread)


@formula(unit="s", symbol="t_roll", cite="graham1969, yu2025")
def rollout_time_s(
    answers: float,
    running: float,
    output_len: float,
    longest_len: float,
    full_step_s: float,
    thin_step_s: float,
    prompts_s: float,
) -> float:
    """Writing `answers` on one replica that decodes `running` of them together.

    1. While others wait, the batch is full: answers / running - 1 rounds of output_len tokens each.
    2. The last `running` then end one by one; the longest is waited for, at the pace of a batch that thins out.
    3. Prompts are read in between.
    """
    full = ops.maximum(answers / running - 1.0, 0.0) * output_len * full_step_s
    return prompts_s + full + longest_len * thin_step_s


@formula(unit="s", symbol="t_sync")
def hand_over_time_s(weight_bytes: float, bytes_per_s: float, latency_s: float) -> float:
    """New weights reach the devices that write answers: each receives its share of a replica."""
    return latency_s + weight_bytes / bytes_per_s
