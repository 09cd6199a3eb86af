"""Run the contract checks: ``check_ood_detector(MyDetector())``, or one pytest case each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from sklearn.base import clone

from dnm_sklearn.detectors import UnknownImageDetector, all_detectors
from dnm_sklearn.detectors.entry_points import foreign_name
from dnm_sklearn.testing.checks import CHECKS, check_save_and_load, check_transductive_is_repeatable

__all__ = ["check_ood_detector", "parametrize_with_ood_checks", "yield_ood_checks"]


def yield_ood_checks(detector: Any) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """Yield the detector with each check that applies to it.

    Parameters
    ----------
    detector : detector
        Unfitted instance of a `BaseOODDetector`.

    Yields
    ------
    detector, check
        Run it as ``check(detector)``.

    Examples
    --------
    >>> from dnm_sklearn import MCMDetector
    >>> from dnm_sklearn.testing.runner import yield_ood_checks
    >>> len(list(yield_ood_checks(MCMDetector())))
    17
    """
    for check in CHECKS:
        # A file holds the detectors of the library, and of others those with an entry point.
        ours = (*all_detectors().values(), UnknownImageDetector)
        saved = type(detector) in ours or foreign_name(type(detector)) is not None
        if check is not check_save_and_load or saved:
            yield detector, check
    if getattr(detector, "adaptation", None) == "transductive":
        yield detector, check_transductive_is_repeatable


def check_ood_detector(
    detector: Any,
    *,
    expected_failed_checks: dict[str, str] | None = None,
    on_fail: str | None = "raise",
) -> list[dict[str, Any]]:
    """Run all checks on a detector, as scikit-learn's ``check_estimator`` does.

    What fails is an ``AssertionError`` that names the rule that was broken.

    Parameters
    ----------
    detector : detector
        Unfitted instance of a `BaseOODDetector`.
    expected_failed_checks : dict of str to str, optional
        Names of checks that may fail, with the reasons.
    on_fail : {"raise", None}, default="raise"
        Raise the first unexpected failure, or only record it.

    Returns
    -------
    list of dict
        With ``check_name``, ``status`` ("passed", "failed" or "xfail"), ``exception`` and
        ``expected_to_fail_reason``.

    Examples
    --------
    >>> from dnm_sklearn import MCMDetector
    >>> from dnm_sklearn.testing import check_ood_detector
    >>> {result["status"] for result in check_ood_detector(MCMDetector())}
    {'passed'}
    """
    # Each check gets a clone: what one does to a detector, the next must not see.
    results = []
    for own, check in yield_ood_checks(detector):
        reason = (expected_failed_checks or {}).get(check.__name__)
        status, exception = "passed", None
        try:
            _run(check, own)
        except Exception as error:
            if reason is None and on_fail == "raise":
                raise
            status, exception = "failed" if reason is None else "xfail", error
        results.append(
            {
                "check_name": check.__name__,
                "status": status,
                "exception": exception,
                "expected_to_fail_reason": reason,
            }
        )

    return results


def parametrize_with_ood_checks(
    detectors: Sequence[Any],
    *,
    expected_failed_checks: Callable[[Any], dict[str, str]] | None = None,
) -> Callable:
    """Pytest decorator: one case for each detector and check, as `estimator` and `check`.

    Parameters
    ----------
    detectors : list of detectors
        Unfitted instances.
    expected_failed_checks : callable, optional
        Detector to the checks that may fail, with the reasons (marked xfail).

    Returns
    -------
    decorator

    Examples
    --------
    >>> from dnm_sklearn import MCMDetector
    >>> from dnm_sklearn.testing import parametrize_with_ood_checks
    >>> @parametrize_with_ood_checks([MCMDetector()])
    ... def test_contract(estimator, check):
    ...     check(estimator)
    """
    # Here, not at the top: check_ood_detector works where pytest is not installed.
    import pytest

    cases = []
    for detector in detectors:
        exempt = expected_failed_checks(detector) if expected_failed_checks else {}
        mode = getattr(detector, "adaptation", "")
        for own, check in yield_ood_checks(detector):
            name = check.__name__
            marks = [pytest.mark.xfail(reason=exempt[name])] if name in exempt else []
            label = "-".join(filter(None, (type(own).__name__, mode, name)))
            cases.append(pytest.param(clone(own), partial(_run, check), marks=marks, id=label))

    return pytest.mark.parametrize(("estimator", "check"), cases)


def _run(check: Callable[[Any], None], detector: Any) -> None:
    """Check a clone, so that cases of one detector do not see each other; name a broken rule."""
    try:
        check(clone(detector))
    except Exception as error:
        rule = " ".join((check.__doc__ or "").split())
        raise AssertionError(
            f"{type(detector).__name__} breaks the rule of {check.__name__}: {rule} It went wrong "
            f"with {type(error).__name__}: {error}"
        ) from error
