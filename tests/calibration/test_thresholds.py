"""Thresholds and conformal p-values."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest

from dnm_sklearn.calibration.conformal import (
    calibration_threshold,
    check_level,
    conformal_p_values,
)
from dnm_sklearn.calibration.thresholds import (
    contamination_threshold,
    expected_threshold,
    midpoint_above,
    quantile_threshold,
)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5])
def test_contamination_flags_that_share(share):
    scores = np.random.default_rng(0).permutation(1000).astype(float)
    assert (scores > contamination_threshold(scores, share)).mean() == pytest.approx(share)


@pytest.mark.parametrize("n", [1, 2, 19, 20, 21, 100])
@pytest.mark.parametrize("keep", [0.5, 0.95, 1.0])
def test_quantile_threshold_is_the_smallest_that_keeps_enough(n, keep):
    scores = np.random.default_rng(n).normal(size=n)
    threshold = quantile_threshold(scores, keep)
    assert (scores <= threshold).mean() >= keep
    below = scores[scores < threshold]
    assert len(below) == 0 or (scores <= below.max()).mean() < keep


@pytest.mark.parametrize("flagged", [0.05, 0.2])
@pytest.mark.parametrize("n", [19, 50, 173])
def test_expected_threshold_flags_that_proportion_of_new_scores(n, flagged):
    rng = np.random.default_rng(n)
    rates = [1 - expected_threshold(rng.uniform(size=n), flagged) for _ in range(4000)]
    # Scores are uniform, so that 1 - threshold is the rate; sd of the mean at most 0.0015.
    assert np.mean(rates) == pytest.approx(flagged, abs=0.005)


def test_expected_threshold_of_few_scores_is_the_largest():
    for n in (1, 2, 18):
        assert expected_threshold(np.arange(n), 0.05) == n - 1
    assert expected_threshold(np.arange(20), 0.05) == pytest.approx(18.95)


def test_midpoint_above_moves_no_other_row_over_the_threshold():
    scores = np.array([3.0, 1.0, 2.0, 2.0])
    for threshold in (1.0, 2.0):
        moved = midpoint_above(threshold, scores)
        assert moved > threshold
        np.testing.assert_array_equal(scores > moved, scores > threshold)
    assert midpoint_above(3.0, scores) == pytest.approx(3.00003, abs=1e-9)
    assert midpoint_above(0.0, [0.0]) == 1e-5


def test_calibration_rank_and_minimum():
    assert calibration_threshold(range(100), 0.95) == 95.0  # ceil(101 * .95) = 96th smallest
    assert calibration_threshold(range(19), 0.95) == 18.0
    with pytest.raises(ValueError, match="at least 19 are needed"):
        calibration_threshold(range(18), 0.95)
    with pytest.raises(ValueError, match="NaN"):
        calibration_threshold([1.0, np.nan] * 20)
    with pytest.raises(ValueError, match="at least one"):
        conformal_p_values([1.0], [])


# Hundredths, with 1 / 3: floats miss most whole multiples of them by a little.
LEVELS = [*(Fraction(number, 100) for number in range(1, 100)), Fraction(1, 3)]


@pytest.mark.parametrize("n", [19, 20, 29, 99, 100, 199, 999])
def test_ranks_are_those_of_exact_arithmetic(n):
    scores = np.arange(n, dtype=float)
    for exact in LEVELS:
        rank = ceil((n + 1) * exact)
        if rank <= n:
            assert calibration_threshold(scores, float(exact)) == rank - 1
        assert quantile_threshold(scores, float(exact)) == max(ceil(n * exact), 1) - 1


def test_numbers_of_images_needed_are_those_of_exact_arithmetic():
    for exact in LEVELS:
        needed = ceil(exact / (1 - exact))
        # As many are enough; with one less the message names them.
        calibration_threshold(np.arange(needed), float(exact))
        with pytest.raises(ValueError, match=f"at least {needed} are needed|at least one"):
            calibration_threshold(np.arange(needed - 1), float(exact))

    # Of 1 / 49 floats miss both 49 times it and its inverse.
    for exact in [*LEVELS, *(Fraction(1, number) for number in range(2, 400))]:
        fewest = ceil(1 / exact) - 1
        assert check_level(float(exact), fewest) == float(exact)
        if fewest > 1:
            with pytest.raises(ValueError, match=f"at least {fewest} are needed"):
                check_level(float(exact), fewest - 1)


def test_false_alarm_rate_is_held_in_simulation():
    rng = np.random.default_rng(0)
    flagged, small_p = [], []
    for _ in range(4000):
        draw = rng.standard_t(2, size=51)
        flagged.append(draw[-1] > calibration_threshold(draw[:-1], 0.9))
        small_p.append(conformal_p_values(draw[-1:], draw[:-1])[0] <= 0.1)
    # Exact rates are 1 - ceil(51 * .9) / 51 = 0.0980 and floor(51 * .1) / 51 = 0.0980; sd of the
    # mean 0.0047.
    assert np.mean(flagged) == pytest.approx(0.098, abs=0.02)
    assert np.mean(small_p) == pytest.approx(0.098, abs=0.02)


def test_p_values_match_their_definition_and_count_ties_against():
    calibration = np.array([0.0, 1.0, 1.0, 2.0])
    scores = np.array([-1.0, 1.0, 1.5, 3.0, np.nan])
    expected = [(1 + (calibration >= s).sum()) / 5 for s in scores[:-1]]
    got = conformal_p_values(scores, calibration)
    assert got[:-1].tolist() == expected
    assert np.isnan(got[-1])
