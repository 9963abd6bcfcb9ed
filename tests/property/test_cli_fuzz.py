"""Thousands of mutated command lines: an answer or one line of complaint, never a traceback."""

from __future__ import annotations

import random

import pytest

from capacity.cli import main

SEEDS = range(24)
CASES_PER_SEED = 125

WORKING = [
    ["estimate", "--params", "7e9"],
    ["estimate", "--params", "70B", "--mode", "train", "--nodes", "16", "--tp", "8", "--pp", "2", "--zero", "1"],
    ["estimate", "--params", "1.5B", "--mode", "finetune", "--tokens", "10M", "--batch", "64", "--seq-len", "2048"],
    ["estimate", "--model", "llama-3.1-8b", "--mode", "lora", "--lora-rank", "32", "--device", "rtx-4090"],
    ["estimate", "--model", "llama-3.1-70b", "--mode", "serve", "--device", "h100-sxm", "--devices", "4"],
    ["estimate", "--model", "deepseek-v3", "--mode", "serve", "--precision", "fp8", "--ep", "8", "--concurrency", "64"],
    ["estimate", "--model", "gpt2", "--optimizer", "muon", "--recompute", "full", "--micro-batch", "4", "--plain"],
    [
        "estimate",
        "--model",
        "mixtral-8x7b",
        "--prompt-len",
        "4096",
        "--output-len",
        "64",
        "--kv-precision",
        "fp8",
        "--json",
    ],
    ["estimate", "--params", "3B", "--price", "2.5", "--pue", "1.1", "--grid", "56", "-v"],
    ["estimate", "--params", "7e9", "--explain", "train.step_time", "--depth", "2"],
    ["devices", "h100"],
    ["devices", "--kind", "gpu", "--vendor", "AMD", "--json"],
    ["models", "--family", "llama"],
    ["models", "deepseek-v3"],
    ["--version"],
]
HOSTILE = [
    "", " ", "-", "--", "-1", "0", "1e999", "-inf", "nan", "1e-300", "99999999999999999999", "7e9", "7X", "7G", "80GB", "3.5", "1,000",
    "1_000", "٣", "８", "½", "\x1b[31m", "a\nb", "\u202e", "\udcff", "\x00", "../../etc/passwd", "/", "/dev/null", "~",
    "a" * 10_000, "%s%n", "{}", "$(id)", "none", "None", "true", "h100", "h100-sxm", "llama", "llama-3.1-8b", "bf16", "int4", "fp4",
    "serve", "train", "adamw", "sgd", "world", "56", "8", "2", "3", "7", "1000", "1000000", "10B", "1e13", "1e6", "step_time", "train.mfu",
    "aliases", "con.toml", "🦙", "--params=7e9", "-h", "--help",
]  # fmt: skip
OPTIONS = [
    "--params", "--model", "--config", "--mode", "--tokens", "--seq-len", "--batch", "--optimizer", "--lora-rank", "--prompt-len",
    "--output-len", "--concurrency", "--precision", "--kv-precision", "--device", "--devices", "--nodes", "--cluster", "--stack",
    "--catalogue", "--tp", "--pp", "--dp", "--ep", "--zero", "--micro-batch", "--interleave", "--recompute", "--price", "--pue", "--grid",
    "-v", "--assumptions", "--explain", "--depth", "--plain", "--json", "--kind", "--vendor", "--family", "--parms", "-x",
]  # fmt: skip


def mutated(rng: random.Random) -> list[str]:
    words = list(rng.choice(WORKING))
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(words))
        kind = rng.randrange(7)
        if kind == 0:
            words[at] = rng.choice(HOSTILE)
        elif kind == 1:
            words.insert(at + 1, rng.choice(HOSTILE))
        elif kind == 2 and len(words) > 1:
            del words[at]
        elif kind == 3:
            words += [rng.choice(OPTIONS), rng.choice(HOSTILE)]
        elif kind == 4:
            words += [rng.choice(OPTIONS)]
        elif kind == 5 and words[at]:
            cut = rng.randrange(len(words[at]))
            words[at] = words[at][:cut] + rng.choice(HOSTILE)[:8] + words[at][cut + rng.randrange(2) :]
        else:
            rng.shuffle(words)
    return words


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mutated_command_line_answers_or_complains_in_one_line(seed, capsys):
    rng = random.Random(seed)
    for _ in range(CASES_PER_SEED):
        words = mutated(rng)
        try:
            status = main(words)
        except SystemExit as leaving:
            status = leaving.code
        except BaseException as error:
            raise AssertionError(f"{words}: {error!r}") from error
        out, err = capsys.readouterr()
        assert status in (0, 2), words
        assert "\x1b" not in out + err, words
        if status == 2:
            assert out == "", words
            assert err.startswith("capacity: error: "), words
            assert err.endswith("\n"), words
            assert err.count("\n") == 1, words
            assert "Traceback" not in err, words
        else:
            assert out, words
            assert err == "", words
