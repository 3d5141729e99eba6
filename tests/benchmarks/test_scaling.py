"""The simulated autoscaler follows Kubernetes' algorithm, and docs/scaling.md the measured times."""

import numpy as np
import pytest

from benchmarks.scaling.__main__ import DOCUMENT, JSON, PassTimes, quick_parts, shipped
from benchmarks.scaling.autoscaler import Autoscaler, Policy, Settings
from benchmarks.scaling.burst import Load, PodModel, simulate

SETTINGS = Settings(
    least=2,
    most=20,
    queue_seconds=0.5,
    processor_share=0.6,
    window_seconds=300,
    up=(Policy("Percent", 100, 15), Policy("Pods", 4, 15)),
    down=(Policy("Percent", 20, 60),),
)
POD = PodModel(processors=2, most_requests=64, service_seconds=np.full(10, 0.25), start_seconds=30)


def test_the_settings_are_read_from_the_manifest_that_ships() -> None:
    assert shipped() == SETTINGS


def test_the_document_has_the_measured_times_and_the_settings_that_ship() -> None:
    page = DOCUMENT.read_text()
    for name, part in quick_parts(PassTimes.model_validate_json(JSON.read_bytes())).items():
        assert f"<!-- begin {name} -->\n\n{part}\n\n<!-- end {name} -->" in page, "run python -m benchmarks.scaling"


def test_pods_are_added_as_fast_as_the_faster_policy_allows() -> None:
    scaler = Autoscaler(SETTINGS)
    assert [scaler.sync(15.0 * step, scaler.replicas, 60.0, 1.0) for step in range(4)] == [6, 12, 20, 20]


def test_a_ratio_within_the_tolerance_changes_nothing() -> None:
    scaler = Autoscaler(SETTINGS)
    scaler.replicas = 10
    assert scaler.sync(0, 10, 0.54, 0.6) == 10
    assert scaler.sync(15, 10, 0.56, 0.6) == 12


def test_pods_that_are_not_ready_count_as_idle_processors() -> None:
    scaler = Autoscaler(SETTINGS.only(processors=True))
    scaler.replicas = 4
    assert scaler.sync(0, 2, 0, 1.0) == 4
    assert scaler.sync(15, 4, 0, 1.0) == 7


def test_pods_are_removed_after_the_window_a_fifth_in_a_minute() -> None:
    scaler = Autoscaler(SETTINGS)
    scaler.replicas = 10
    scaler.sync(0, 10, 0.5, 0.6)
    replicas = {seconds: scaler.sync(seconds, scaler.replicas, 0, 0) for seconds in range(15, 601, 15)}
    assert replicas[300] == 10
    assert replicas[315] == replicas[360] == 8
    assert replicas[375] == 6
    assert replicas[600] == 2


def test_below_capacity_every_request_is_answered_in_about_its_service_time() -> None:
    outcome = simulate(SETTINGS.fixed(4), POD, Load(8, factor=1, before_seconds=60, burst_seconds=360, after_seconds=0))
    assert outcome.refused == 0
    assert outcome.p50_seconds == pytest.approx(0.25)
    assert outcome.replica_hours == pytest.approx(4 * 420 / 3600, rel=0.02)


def test_without_an_autoscaler_what_exceeds_the_capacity_is_refused() -> None:
    load = Load(8, before_seconds=60, burst_seconds=400, after_seconds=0)
    outcome = simulate(SETTINGS.fixed(2), POD, load)
    assert outcome.refused == pytest.approx(1 - 16 / 80, abs=0.02)
    assert outcome.p99_seconds == pytest.approx(64 * 0.25 / 2, rel=0.05)


def test_with_the_autoscaler_refusals_end_when_the_new_pods_are_ready() -> None:
    outcome = simulate(SETTINGS, POD, Load(8, before_seconds=60, burst_seconds=400, after_seconds=60))
    assert 0 < outcome.refused < 0.15
    assert POD.start_seconds < outcome.refused_seconds < 120
    assert outcome.settled_p99_seconds < 1.5
    assert outcome.most_replicas == 20


def test_the_simulation_is_the_same_each_time() -> None:
    load = Load(2, before_seconds=30, burst_seconds=310, after_seconds=0)
    assert simulate(SETTINGS, POD, load) == simulate(SETTINGS, POD, load)
