"""Where a model can be put: what holds it, meets the limits, and what the others lack."""

import json
import time

import pytest
from jsonschema import Draft202012Validator

import capacity
from capacity.cli import main
from capacity.errors import CapacityError, InputError
from capacity.estimators.answer import derive
from capacity.estimators.compression import compress
from capacity.estimators.deployment import LADDERS, deploy

EDGE = {"model": "llama-3.1-8b", "target": "edge", "latency_limit": 20.0}


def test_what_is_said_to_meet_the_limits_meets_them():
    _, _, found, _ = deploy(**EDGE, power_limit=40.0, energy_limit=2.0)
    met = [one for one in found if not one.lacks]
    assert met
    assert len(met) < len(found)
    for one in met:
        assert one.latency <= 20.0
        assert one.power <= 40.0
        assert one.energy <= 2.0
    assert [bool(one.lacks) for one in found] == sorted(bool(one.lacks) for one in found)
    energies = [one.energy for one in met]
    assert energies == sorted(energies)


def test_the_least_loss_that_meets_the_limits_is_taken():
    """The same question to `compress`, which tries every method on one device."""
    _, _, found, _ = deploy(**EDGE)
    one = next(one for one in found if one.place == "jetson-orin-nano-super-8gb")
    others = {
        option.method: option
        for option in compress(model="llama-3.1-8b", device=one.place, concurrency=1)
        if option.method in LADDERS["edge"]
    }
    assert one.memory == pytest.approx(others[one.method].memory.mid, rel=1e-6)
    before = LADDERS["edge"][: LADDERS["edge"].index(one.method)]
    for method in before:
        if not others[method].fits:
            continue
        asked = {"model": "llama-3.1-8b", "mode": "serve", "device": one.place, "concurrency": 1, "precision": method}
        found = capacity.estimate(**asked).sections["serve"].quantities
        assert found["ttft"].mid + 255.0 * found["tpot"].mid > EDGE["latency_limit"], method


def test_tighter_limits_leave_fewer_places():
    def reaching(**limits):
        return sum(not one.lacks for one in deploy(model="llama-3.1-70b", target="cloud", **limits)[2])

    free, slow, quick = reaching(), reaching(latency_limit=15.0), reaching(latency_limit=8.0)
    assert free > slow > quick > 0


def test_what_is_too_large_says_what_memory_it_lacks():
    estimate = capacity.estimate(model="llama-3.1-405b", mode="deploy", target="edge")
    section = estimate.sections["deploy"]
    assert section.fits is False
    assert section.binding == "memory"
    assert "of memory" in section.verdict
    assert all("of memory" in row["lacks"] or "room" in row["lacks"] for row in section.alternatives)


def test_clouds_are_paid_by_the_instance():
    _, _, found, _ = deploy(model="llama-3.1-70b", target="cloud", price_limit=20.0, latency_limit=30.0)
    met = [one for one in found if not one.lacks]
    assert met
    assert all(one.usd_per_hour <= 20.0 for one in met)
    assert any("price" in lack for one in found for lack in one.lacks)
    costs = [one.usd_per_million for one in met]
    assert costs == sorted(costs)


def test_models_that_answer_in_one_pass_have_places_too():
    section = capacity.estimate(model="vit-b-16", mode="deploy", target="edge", latency_limit=0.5).sections["deploy"]
    assert section.quantities["reaching"].mid > 5


def test_the_command_answers_soon_and_to_the_schema(capsys):
    began = time.process_time()
    assert main(["estimate", "--model", "llama-3.1-8b", "--mode", "deploy", "--target", "server", "--json"]) == 0
    assert time.process_time() - began < 6.0  # a second or two on a quiet machine
    answer = json.loads(capsys.readouterr().out)
    with open(capacity.__path__[0] + "/schema/estimate-1.json", encoding="utf-8") as file:
        Draft202012Validator(json.load(file)).validate(answer)
    assert list(answer["sections"]) == ["deploy"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_keeps_to_its_width(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert (
        main(["estimate", "--model", "llama-3.1-8b", "--mode", "deploy", "--target", "edge", "--power-limit", "30W"])
        == 0
    )
    text = capsys.readouterr().out
    assert "lacks" in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"device": "h100-sxm"}, "leave it out"),
        ({"target": "cluod"}, "cloud"),
        ({"latency_limit": -1.0}, "--latency-limit"),
        ({"model": "llama-3.1-9b"}, "llama-3.1-8b"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(request_, told):
    with pytest.raises(CapacityError) as caught:
        capacity.estimate(**({"model": "llama-3.1-8b", "mode": "deploy"} | request_))
    assert told in str(caught.value)


def test_one_number_is_derived_of_one_place():
    with pytest.raises(InputError, match="--mode serve --device"):
        derive("tpot", model="llama-3.1-8b", mode="deploy")


def test_limits_are_of_deployments():
    with pytest.raises(InputError, match="--mode deploy"):
        capacity.estimate(model="llama-3.1-8b", mode="serve", latency_limit=2.0)


def test_what_misses_a_limit_is_ranked_by_how_far_it_is_off():
    _, _, found, _ = deploy(model="llama-3.2-1b", target="edge", latency_limit=10.0, power_limit=8.0)
    missed = [one for one in found if one.lacks and one.holds]
    assert len(missed) > 10
    for count in (1, 2):
        over = [one.over for one in missed if len(one.lacks) == count]
        assert over == sorted(over)
        assert all(one > 1.0 for one in over)


def test_every_place_that_is_left_out_says_why():
    answer = capacity.estimate(model="llama-3.1-8b", mode="deploy", target="edge", latency_limit=20.0, power_limit=30.0)
    section = answer.sections["deploy"]
    rows = section.alternatives
    assert len(rows) == section.quantities["candidates"].mid
    lacking = [row for row in rows if row["lacks"] != "nothing"]
    assert len(lacking) == len(rows) - section.quantities["reaching"].mid
    assert sum(section.breakdowns["kept_by"].values()) >= len(lacking)
    assert "what keeps the others" in section.verdict


@pytest.mark.parametrize(
    ("target", "kinds"), [("phone", {"phone"}), ("laptop", {"laptop"}), ("workstation", {"workstation"})]
)
def test_a_target_may_be_one_kind_of_device(target, kinds):
    from capacity.catalogue import load_device

    _, _, found, _ = deploy(model="llama-3.2-1b", target=target)
    assert {load_device(one.place).segment for one in found} == kinds


def test_times_to_the_first_and_each_next_token_are_limits_of_their_own():
    asked = {"model": "llama-3.1-70b", "target": "cloud"}
    free = {one.place for one in deploy(**asked)[2] if not one.lacks}
    bound = deploy(**asked, ttft_limit=1.0, tpot_limit=0.03)[2]
    met = {one.place for one in bound if not one.lacks}
    assert met < free
    assert {lack.split()[0] for one in bound for lack in one.lacks} & {"TTFT", "TPOT"}
    with pytest.raises(InputError, match="latency-limit"):
        deploy(model="bert-base", ttft_limit=1.0)


def test_embeddings_and_pictures_are_counted_as_such():
    for name, item in (("bert-base", "request"), ("vit-b-16", "image")):
        quantities = capacity.estimate(model=name, mode="deploy", target="workstation").sections["deploy"].quantities
        assert {f"energy_per_{item}", f"{item}s_per_s"} <= quantities.keys()


def test_a_network_is_traced_once_and_priced_everywhere():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, 2, 1))
    asked = {"module": net, "input": "1x3x128x128"}
    answer = capacity.estimate(**asked, mode="deploy", target="edge", power_limit=20.0)
    section = answer.sections["deploy"]
    first = section.alternatives[0]
    assert first["lacks"] == "nothing"
    alone = capacity.estimate(**asked, mode="infer", device=first["place"], precision=first["method"])
    assert first["latency_s"] == pytest.approx(alone.sections["infer"].quantities["latency"].mid)
    assert first["memory_per_device_bytes"] == pytest.approx(
        alone.sections["infer"].quantities["memory_per_device"].mid
    )
    energies = [row["energy_j"] for row in section.alternatives if row["lacks"] == "nothing"]
    assert energies == sorted(energies)
