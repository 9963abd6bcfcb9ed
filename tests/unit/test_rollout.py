"""Reinforcement learning: an iteration is answers written, judged and learnt from, on the same devices or on others."""

from __future__ import annotations

import pytest

from capacity.errors import InputError
from capacity.estimators.answer import derive, estimate
from capacity.formulas import rollout

ASKED = {"model": "qwen2.5-7b", "mode": "rlhf", "devices": 32}
LOOP = ("generation", "weights to the engine", "reference", "reward", "critic", "first probabilities")


def loop(**request):
    return estimate(**ASKED | request).sections["rlhf"]


class TestFormulas:
    def test_a_batch_that_fits_at_once_takes_as_long_as_its_longest_answer(self):
        assert rollout.rollout_time_s(64.0, 64.0, 100.0, 300.0, 0.01, 0.008, 1.0) == pytest.approx(1.0 + 300 * 0.008)

    def test_others_wait_for_full_rounds(self):
        """Three rounds more than fit, each of mean length at the full batch's pace."""
        more = rollout.rollout_time_s(256.0, 64.0, 100.0, 300.0, 0.01, 0.008, 1.0)
        assert more == pytest.approx(1.0 + 3 * 100 * 0.01 + 300 * 0.008)

    def test_equal_answers_are_as_long_as_each_other(self):
        assert rollout.longest_answer_len(2048.0, 0.0, 1024.0) == 2048.0
        assert rollout.longest_answer_len(2048.0, 0.5, 1024.0) == pytest.approx(2048.0 * 2.8616, rel=1e-4)


class TestIteration:
    def test_parts_add_up_and_writing_prevails(self):
        """Hu 2024 and Sheng 2024 find most of an iteration in writing."""
        found = loop()
        assert sum(found.breakdowns["time"].values()) == pytest.approx(found.quantities["step_time"].mid)
        assert found.breakdowns["time"]["generation"] > 0.5 * found.quantities["step_time"].mid
        assert found.quantities["generation_time"].mid == found.breakdowns["time"]["generation"]
        assert found.binding == "writing answers"
        assert found.quantities["steps"].mid == 200.0

    def test_longer_answers_take_longer_to_write(self):
        short, long = (loop(output_len=length).breakdowns["time"]["generation"] for length in (1024, 8192))
        assert long > 7.0 * short

    def test_writing_is_as_a_server_writes(self):
        """One answer on each replica, all as long: a request of the server."""
        found = loop(batch=32, group=1, output_variation=0, devices=32, rollout_tp=1)
        served = estimate(
            model="qwen2.5-7b", mode="serve", devices=1, tp=1, prompt_len=512, output_len=2048, concurrency=1
        ).sections["serve"]
        each = served.breakdowns["time"]
        assert found.breakdowns["time"]["generation"] == pytest.approx(2048 * sum(each.values()), rel=0.02)

    def test_a_group_reads_its_prompt_once(self):
        alone, grouped = (loop(group=size, prompt_len=4096).breakdowns["time"]["generation"] for size in (1, 16))
        assert grouped < alone

    def test_learning_is_what_fine_tuning_is(self):
        learnt = {name: part for name, part in loop(batch=1024).breakdowns["time"].items() if name not in LOOP}
        plain = estimate(model="qwen2.5-7b", mode="finetune", devices=32, batch=1024, seq_len=2560, dp=32, tp=1, pp=1, zero=3,
                         micro_batch=4).sections["finetune"]  # fmt: skip
        assert sum(learnt.values()) == pytest.approx(plain.quantities["step_time"].mid, rel=0.05)


class TestJudges:
    def test_ppo_judges_and_trains_a_critic(self):
        grpo, ppo = loop(), loop(algorithm="ppo")
        assert {"reward", "critic"} <= set(ppo.breakdowns["time"])
        assert not {"reward", "critic"} & set(grpo.breakdowns["time"])
        learnt = sum(part for name, part in ppo.breakdowns["time"].items() if name not in LOOP)
        assert ppo.breakdowns["time"]["critic"] == pytest.approx(4.0 / 3.0 * learnt, rel=0.15)
        assert ppo.breakdowns["memory"]["critic"] > ppo.breakdowns["memory"]["optimizer"]

    def test_no_reference_is_neither_held_nor_run(self):
        bare = loop(no_reference=True)
        assert "reference" not in {**bare.breakdowns["time"], **bare.breakdowns["memory"]}

    def test_a_reward_model_of_another_size(self):
        small, large = (loop(reward=name).breakdowns["time"]["reward"] for name in ("llama-3.2-1b", "llama-3.1-8b"))
        assert large > 4.0 * small

    def test_more_updates_ask_for_first_probabilities(self):
        one, four = loop(), loop(updates=4)
        assert "first probabilities" in four.breakdowns["time"]
        assert four.breakdowns["time"]["optimizer"] == pytest.approx(
            4.0 * one.breakdowns["time"]["optimizer"], rel=0.01
        )
        assert four.breakdowns["time"]["reference"] == pytest.approx(one.breakdowns["time"]["reference"], rel=0.05)


class TestPools:
    def test_devices_that_only_write_do_so_meanwhile(self):
        """The slower side sets the pace: the other waits."""
        apart = loop(rollout_devices=16)
        parts = apart.breakdowns["time"]
        assert "generation" not in parts
        learning = sum(
            part for name, part in parts.items() if name not in ("waiting for answers", "weights to the engine")
        )
        slower = max(learning, apart.quantities["generation_time"].mid)
        assert apart.quantities["step_time"].mid == pytest.approx(slower, rel=0.01)
        hours = apart.quantities["device_hours"].mid
        assert hours == pytest.approx(32 * apart.quantities["run_time"].mid / 3600)
        assert "devices of their own" in apart.setting

    def test_states_move_aside_where_answers_have_no_room(self):
        tight = loop(devices=8, model="llama-3.1-8b", batch=4096, output_len=8192, zero=1, tp=1, algorithm="ppo")
        roomy = loop(devices=8, model="llama-3.1-8b", batch=8, output_len=256)
        assert "states on the host meanwhile" in tight.setting
        assert "states on the host meanwhile" not in roomy.setting
        assert tight.breakdowns["time"]["weights to the engine"] > roomy.breakdowns["time"]["weights to the engine"]

    def test_eight_bits_write_faster(self):
        wide, narrow = (loop(rollout_precision=word).quantities["generation_time"].mid for word in ("bf16", "fp8"))
        assert narrow < 0.8 * wide

    def test_it_can_be_derived(self):
        value = derive("rlhf.generation_time", **ASKED)
        assert value == pytest.approx(loop().quantities["generation_time"].mid)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"seq_len": 4096}, "--seq-len is a prompt and its answer"),
        ({"group": 7}, "--group 7 does not divide the 1024 answers"),
        ({"updates": 3}, "--updates 3 does not divide the 1024 answers"),
        ({"algorithm": "dpo"}, "--algorithm is 'dpo'"),
        ({"rollout_devices": 32}, "leaves no device to train on"),
        ({"rollout_tp": 3}, "does not divide"),
        ({"eval_tokens": 1e6}, "--eval-tokens has no use in --mode rlhf"),
        ({"mode": "train", "group": 8}, "--group is of --mode rlhf"),
    ],
)
def test_what_makes_no_sense_is_said(request_, said):
    with pytest.raises(InputError, match=said):
        loop(**request_)
