"""
What the rounds of an end-to-end benchmark come to: rates, conservation, the roofline and the overhead.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from worker.adapters.kafka_arrivals import Arrived
from worker.bench.e2e import E2ePlan
from worker.bench.e2e_result import Rounds, figures_of, memory_told, summary_of, targets_of
from worker.bench.live import Round
from worker.bench.measurement import Took
from worker.bench.memory import MEBI, Held
from worker.bench.report_parts import E2E_ROWS
from worker.bench.roofline import overhead_ms, roofline_fraction, roofline_per_s
from worker.bench.uploads import Answers, answers_of, file_events, rate_of, steady_rate_of
from worker.errors import WorkerCrashed

COSTS_S = {"fetch": 0.001, "decode": 0.004, "encode": 0.014, "search": 0.001}
CORES, WINDOW = 2, 80


def arrived(content_id: str, at_ms: int = 1_000, **more: object) -> Arrived:
    """
    An outcome of this content.
    """
    return Arrived("verdicts", 0, 0, at_ms, None, json.dumps({"content_id": content_id, **more}).encode())


def steady(uploads: int, per_s: float) -> Answers:
    """
    The answers of uploads that are judged one after the other.
    """
    return Answers(0.0, [(number + 1) / per_s for number in range(uploads)], {"hit redis": uploads})


def a_round(uploads: int, per_s: float, cpu_s: float) -> Round:
    """
    A round at this rate, with this CPU time per upload; the servers take a tenth of it.
    """
    took = Took(uploads / per_s, cpu_s * uploads, others=0.25)
    return Round(steady(uploads, per_s), took, cpu_s * uploads / 10, cpu_s * uploads / 20)


def all_rounds(count: int) -> Rounds:
    """
    Equal rounds of every lane: 90 uploads a second in 21 ms each, the naive loop 15 in 130 ms, cached ones 3,000.
    """
    rounds = Rounds()
    for _ in range(count):
        rounds.add("worker", a_round(180, 90.0, 0.021))
        rounds.add("naive", a_round(30, 15.0, 0.130))
        rounds.add("batched", a_round(60, 20.0, 0.100))
        rounds.add("light", a_round(100, 300.0, 0.0204))
        rounds.add("cached", a_round(3_000, 3_000.0, 0.0025))
        rounds.add("recent", a_round(3_000, 4_000.0, 0.002))
    rounds.stages = {name: [Took(cost_s, cost_s, 0.0)] * count for name, cost_s in COSTS_S.items()}
    rounds.light_stages = rounds.cached_stages = rounds.stages
    return rounds


def test_the_roofline_is_the_cores_over_all_stages() -> None:
    """
    Two cores and 20 ms of work per upload are 100 uploads a second; 90 of them are nine tenths.
    """
    assert roofline_per_s(COSTS_S, CORES) == pytest.approx(100.0)
    assert roofline_fraction(90.0, COSTS_S, CORES) == pytest.approx(0.9)
    assert overhead_ms(0.0205, COSTS_S) == pytest.approx(0.5)


def test_an_encoder_with_a_device_of_its_own_is_no_work_for_the_cores() -> None:
    """
    The slower of the two is the limit: 1 ms on the device, or what is left on the cores, 6 ms on two.
    """
    rounds = all_rounds(1)
    rounds.stages["encode"] = [Took(0.001, 0.014, 0.0)]
    bound_by_cores = summary_of(rounds, figures_of(rounds, cores=CORES, window=WINDOW), cores=CORES, on_device=True)
    bound_by_device = summary_of(rounds, figures_of(rounds, cores=CORES, window=WINDOW), cores=16, on_device=True)

    assert bound_by_cores["roofline_images_per_s"] == pytest.approx(CORES / 0.006)
    assert bound_by_device["roofline_images_per_s"] == pytest.approx(1000.0)
    assert bound_by_device["roofline_fraction"] == pytest.approx(0.09)
    assert bound_by_device["roofline_fraction_by_cpu"] is None


def test_the_roofline_is_of_bare_work_and_the_overhead_of_the_workers_own() -> None:
    """
    Hash and credentials are in what a worker decodes, and not in the roofline; nor is a batch size that costs more.

    The overhead is what the four stages leave, each counted once, however many ways were measured beside.
    """
    rounds = all_rounds(1)
    before = summary_of(rounds, figures_of(rounds, cores=CORES, window=WINDOW), cores=CORES)
    beside_s = {"decode_bare": 0.003, "encode_8": 0.012, "encode_16": 0.013}
    rounds.stages = rounds.stages | {name: [Took(cost_s, cost_s, 0.0)] for name, cost_s in beside_s.items()}
    rounds.light_stages = rounds.stages
    after = summary_of(rounds, figures_of(rounds, cores=CORES, window=WINDOW), cores=CORES)

    assert after["stage_costs_ms"] == pytest.approx({"fetch": 1.0, "decode": 3.0, "encode": 12.0, "search": 1.0})
    assert after["roofline_images_per_s"] == pytest.approx(CORES / 0.017)
    assert after["facts_ms_per_upload"] == pytest.approx(1.0)
    assert before["facts_ms_per_upload"] is None
    assert before["overhead_ms_per_upload"] == after["overhead_ms_per_upload"]


def test_stages_that_cost_nothing_have_no_roofline() -> None:
    """
    An unmeasured stage must not look like an infinite speed.
    """
    with pytest.raises(ValueError, match="cost 0"):
        roofline_per_s({"encode": 0.0}, CORES)


def test_the_summary_relates_what_was_measured() -> None:
    """
    Ratios are of rates in one round, by the clock and by CPU time; overhead is what the stages leave of the light lane.
    """
    rounds = all_rounds(3)
    figures = figures_of(rounds, cores=CORES, window=WINDOW)

    summary = summary_of(rounds, figures, cores=CORES)

    assert summary["images_per_s"] == pytest.approx(90.0)
    assert summary["ratio_to_naive"] == pytest.approx(6.0)
    assert summary["ratio_to_naive_by_cpu"] == pytest.approx(130 / 21)
    assert summary["ratio_to_batched_naive"] == pytest.approx(4.5)
    assert summary["roofline_fraction"] == pytest.approx(0.9)
    assert summary["roofline_fraction_by_cpu"] == pytest.approx(20 / 21)
    assert summary["overhead_ms_per_upload"] == pytest.approx(0.4)
    assert summary["overhead_cached_ms_per_upload"] == pytest.approx(0.5)
    assert summary["cached_per_s"] == pytest.approx(3_000.0)
    assert summary["cached_from"] == {"hit redis": 9_000}


def test_a_loop_that_took_no_part_has_no_figures() -> None:
    """
    Without the naive loops their keys are there and empty, and no figure of theirs is told.
    """
    rounds = all_rounds(1)
    del rounds.lanes["naive"], rounds.lanes["batched"]
    figures = figures_of(rounds, cores=CORES, window=WINDOW)

    assert summary_of(rounds, figures, cores=CORES)["ratio_to_naive"] is None
    assert [one.name for one in figures if "naive" in one.name] == []


def test_servers_and_others_are_told_apart() -> None:
    """
    The broker's and Redis's CPU time stands beside the worker's, and what strangers used beside all of them.
    """
    by_name = {one.name: one.median for one in figures_of(all_rounds(2), cores=CORES, window=WINDOW)}

    assert by_name["worker_cpu"] == pytest.approx(21.0)
    assert by_name["worker_kafka_cpu"] == pytest.approx(2.1)
    assert by_name["worker_redis_cpu"] == pytest.approx(1.05)
    assert by_name["cores_used_by_others"] == 0.25


def test_memory_is_told_with_its_growth_after_the_first_round() -> None:
    """
    A first round in which pools fill is left out; what comes later grows by a MiB in a thousand uploads.
    """
    grown = [300, 900, 1_000, 1_001, 1_002, 1_003]
    samples = [(1_000 * number, Held(2 * mib * MEBI, mib * MEBI, 0, 0)) for number, mib in enumerate(grown, 1)]

    told = memory_told(samples, rounds=3)

    assert (2_006.0, 1_003.0, 6_000) == (told["memory_mib"], told["memory_private_mib"], told["memory_uploads"])
    assert pytest.approx(100.0) == told["memory_growth_mib_per_100k"]
    assert memory_told(samples[:2], rounds=1)["memory_growth_mib_per_100k"] is None
    assert memory_told([], rounds=1)["memory_mib"] is None


def test_targets_are_judged_on_what_they_were_set_for() -> None:
    """
    Rates on two cores with that model and bank; the share of the roofline and the overhead everywhere.
    """
    rounds = all_rounds(1)
    summary = summary_of(rounds, figures_of(rounds, cores=CORES, window=WINDOW), cores=CORES)
    on_two = summary | {"cores": 2, "model": "ViT-B-32", "backend": "openvino", "references": 10_000}
    found = {one.name: one for one in targets_of(on_two, on_device=False)}
    elsewhere = {one.name: one.met for one in targets_of(on_two | {"cores": 16}, on_device=False)}

    assert (6.0, True) == (found["ratio_to_naive"].bound, found["ratio_to_naive"].met)
    assert 4.5 == targets_of(on_two | {"backend": "torch"}, on_device=False)[0].bound
    assert [True, True, True, True] == [one.met for one in found.values()]
    assert {"ratio_to_naive": None, "cached_per_s": None} == {name: met for name, met in elsewhere.items() if not met}


def test_the_rest_of_the_cores_is_idle() -> None:
    """
    A worker that takes 0.225 of the cores beside others that take 0.25 leaves 0.525; where all is used nothing is left.
    """
    rounds = all_rounds(1)
    summary = summary_of(rounds, figures_of(rounds, cores=CORES, window=WINDOW), cores=CORES)

    assert summary["cores_idle"] == 0.0
    assert replace(a_round(180, 45.0, 0.010), kafka_cpu_s=0.0, redis_cpu_s=0.0).idle(CORES) == pytest.approx(0.525)


def test_the_report_tells_figures_that_there_are() -> None:
    """
    Every row of its end-to-end table names a key of the summary.
    """
    rounds = all_rounds(1)
    summary = summary_of(rounds, figures_of(rounds, cores=CORES, window=WINDOW), cores=CORES)

    assert set() == {row.path[0] for row in E2E_ROWS} - set(summary)


def test_longer_rounds_are_the_workers_alone() -> None:
    """
    Of slower lanes and of tiny pictures a longer round says no more; a loop that was not asked for has none.
    """
    plan = E2ePlan.of(10_000, 24, references=2, rounds=3, loops=["naive"])

    assert (10_000, 96, 0, 960) == (plan.uploads, plan.naive_uploads, plan.batched_uploads, plan.light_uploads)
    assert 32 + 3 * 10_000 == plan.most_new


def test_a_round_that_fits_into_the_worker_has_no_steady_part() -> None:
    """
    Whatever part of it were counted, most of its uploads were fetched and decoded before.
    """
    assert steady_rate_of([float(number) for number in range(8)], window=4) is None
    assert steady_rate_of([1.0] * 9, window=4) is None


def test_the_steady_part_begins_and_ends_with_a_full_worker() -> None:
    """
    The first outcomes and the last, as many as a worker takes at once, are left out, and batches are counted whole.
    """
    slow, steady_s, drained = [10.0] * 4, [11.0, 11.0, 12.0, 12.0, 13.0, 13.0], [13.1, 13.2, 13.3, 13.4]

    assert steady_rate_of(slow + steady_s + drained, window=4) == pytest.approx(6 / 3.0)


@pytest.mark.parametrize(
    ("made_s", "expected"),
    [([2.0, 3.0, 4.0, 5.0], 4 / 4.0), ([3.0, 5.0, 3.0, 5.0], 4 / 4.0), ([2.0, 2.0], 2 / 1.0)],
    ids=["one by one", "in bursts", "all at once"],
)
def test_a_rate_counts_all_from_the_beginning(made_s: Sequence[float], expected: float) -> None:
    """
    All outcomes, over the time from the beginning at 1 to the last of them, in whichever order they come.
    """
    assert rate_of(made_s, began_s=1.0) == expected


def test_a_rate_of_nothing_is_refused() -> None:
    """
    Neither no outcome nor one before the beginning has a rate.
    """
    with pytest.raises(ValueError, match="not after the beginning"):
        rate_of([], began_s=0.0)
    with pytest.raises(ValueError, match="not after the beginning"):
        rate_of([1.0], began_s=1.0)


def test_every_upload_is_answered_once() -> None:
    """
    The times of the verdicts in order, and what the cache said.
    """
    events = file_events("run", ["a.jpg", "b.jpg"])
    found = [arrived("run/1", 2_000, cache={"status": "hit", "tier": "redis"}), arrived("run/0", 1_500)]

    answers = answers_of(events, found, began_s=1.0, by="worker")

    assert answers == Answers(1.0, [1.5, 2.0], {"hit redis": 1, "untold": 1})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([arrived("run/0")], "1 uploads have no verdict"),
        ([arrived("run/0"), arrived("run/1"), arrived("run/1")], "1 outcomes answer none"),
        ([arrived("run/0"), arrived("run/1", outcome={"status": "failed"})], "1 of 2 uploads failed"),
    ],
    ids=["lost", "twice", "failed"],
)
def test_no_rate_of_what_was_lost(found: Sequence[Arrived], said: str) -> None:
    """
    Lost, repeated and failed uploads end the benchmark.
    """
    with pytest.raises(WorkerCrashed, match=said):
        answers_of(file_events("run", ["a.jpg", "b.jpg"]), found, began_s=0.0, by="worker")
