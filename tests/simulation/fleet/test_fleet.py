"""The model of a simulated fleet: its figures are those of its formulas, and the seed decides everything."""

from dataclasses import replace

import numpy as np
import pytest

from fl_common.settings.schema import Settings
from fl_simulation.fleet.fleet import Draw, Fleet, uniform

MANY = np.arange(20_000)
ALIKE = Fleet(speed=10, speed_spread=0, download=8, upload=2, network_spread=0, latency=0.25, epochs=3)


def test_the_time_of_a_client_is_what_is_worked_out_by_hand():
    """Latency 0.25 s each way; 2 MB at 1 MB/s down; 3 epochs of 40 examples at 10 a second; 1 MB at 0.25 MB/s up."""
    seconds = ALIKE.seconds(np.array([5]), np.array([40.0]), np.array([2e6]), np.array([1e6]), trains=True)
    assert seconds.tolist() == [0.5 + 2 + 12 + 4]


def test_an_evaluation_takes_a_third_of_the_time_of_an_epoch_and_sends_no_model():
    seconds = ALIKE.seconds(np.array([5]), np.array([60.0]), np.array([2e6]), np.array([0.0]), trains=False)
    assert seconds.tolist() == [pytest.approx(0.5 + 2 + 2)]


def test_what_is_not_set_takes_no_time():
    nothing = Fleet().seconds(np.array([5, 6]), np.array([40.0, 1.0]), np.array([2e6] * 2), np.zeros(2), trains=True)
    assert nothing.tolist() == [0, 0]


def test_speeds_are_log_normal_about_their_median():
    fleet = replace(ALIKE, speed_spread=0.7, download=0, upload=0, latency=0, epochs=1)
    logs = np.log(fleet.seconds(MANY, np.full(len(MANY), 10.0), np.zeros(len(MANY)), np.zeros(len(MANY)), trains=True))
    assert np.median(logs) == pytest.approx(0, abs=0.02)
    assert logs.std() == pytest.approx(0.7, abs=0.02)
    assert np.mean(np.abs(logs) < 0.7) == pytest.approx(0.683, abs=0.02)


def test_the_share_that_drops_out_does_so_at_any_moment_and_others_in_another_round():
    fleet = Fleet(dropout=0.2)
    first, second = fleet.dropouts(MANY, 0, 1, 1), fleet.dropouts(MANY, 0, 2, 1)
    assert np.mean(~np.isnan(first)) == pytest.approx(0.2, abs=0.01)
    assert np.nanmean(first) == pytest.approx(0.5, abs=0.02)
    assert np.mean(~np.isnan(first) & ~np.isnan(second)) == pytest.approx(0.04, abs=0.01)


def test_who_is_there_follows_the_day():
    fleet = Fleet(peak=0.8, trough=0.2)
    shares = [fleet.present(len(MANY), hour).mean() for hour in (0, 6, 12, 24 + 12, 48)]
    assert shares == pytest.approx([0.8, 0.5, 0.2, 0.2, 0.8], abs=0.015)


def test_around_the_globe_it_is_always_day_somewhere():
    fleet = Fleet(peak=0.8, trough=0.2, zones=24)
    assert [fleet.present(len(MANY), hour).mean() for hour in range(0, 24, 5)] == pytest.approx([0.5] * 5, abs=0.015)


def test_a_trough_above_the_peak_counts_as_the_peak():
    assert Fleet(peak=0.5).present(len(MANY), 12).mean() == pytest.approx(0.5, abs=0.015)


def test_the_same_seed_is_the_same_fleet_and_a_larger_one_has_the_same_first_clients():
    fleet, other = Fleet(seed=3, peak=0.5), Fleet(seed=4, peak=0.5)
    assert fleet.present(50, 7).tolist() == fleet.present(5000, 7).tolist()[:50]
    assert fleet.present(500, 7).tolist() != other.present(500, 7).tolist()


def test_random_numbers_are_uniform_and_independent_of_each_other():
    numbers = np.stack([uniform(9, draw, clients=MANY) for draw in Draw])
    assert numbers.min() > 0
    assert numbers.max() < 1
    np.testing.assert_allclose(numbers.mean(axis=1), 0.5, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(numbers) - np.eye(len(Draw)), 0, atol=0.03)
    np.testing.assert_allclose(np.corrcoef(numbers[0][1:], numbers[0][:-1])[0, 1], 0, atol=0.03)


def test_settings_that_say_nothing_of_a_fleet_give_none():
    assert Fleet.of(Settings(fleet_speed_spread=2, fleet_zones=24)) is None
    fleet = Fleet.of(Settings(fleet_latency=1, seed=7, local_epochs=4))
    assert fleet is not None
    assert (fleet.latency, fleet.seed, fleet.epochs) == (1, 7, 4)
    assert Fleet.of(Settings(over_selection=1.5)) is not None
