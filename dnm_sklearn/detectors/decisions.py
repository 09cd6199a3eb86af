"""From scores to decisions: thresholds, labels, confidence, and guarantees by calibration."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, overload
from weakref import WeakSet

import numpy as np
from sklearn.utils.validation import check_is_fitted

from dnm_sklearn._utils.all_or_nothing import all_or_nothing
from dnm_sklearn._utils.warnings import warn
from dnm_sklearn.calibration import by_class as class_conditional
from dnm_sklearn.calibration import conformal, thresholds, zero_shot
from dnm_sklearn.exceptions import CalibrationWarning, UncalibratedThresholdWarning

if TYPE_CHECKING:
    from typing_extensions import Self

# PyOD's default proportion of outliers, where nothing else is known.
_PYOD_CONTAMINATION = 0.1
# Proportion of the rows known to be ID that contamination="auto" keeps.
_KEPT = 0.95
# Proportion of new ID images that it means to flag, where their scores are known.
_FLAGGED = 0.05

# Detectors that have warned of their uncalibrated threshold since their fit. It is no attribute of
# theirs, because to judge images must leave a detector as it was.
_have_warned: WeakSet[Any] = WeakSet()


class DecisionMixin:
    """Thresholds, labels, class names and guarantees on top of scores."""

    # What a detector brings: see `BaseOODDetector`.
    contamination: Any
    ood_label: str
    decision_function: Callable[[Any], np.ndarray]
    _embed: Callable[..., tuple[np.ndarray, np.ndarray]]
    _score_rows: Callable[..., np.ndarray]
    _nearest_class: Callable[[np.ndarray, np.ndarray], np.ndarray]
    _class_index: Callable[[np.ndarray], np.ndarray]
    _zero_shot_threshold: Callable[[], float | None]

    threshold_: Any  # a float, or None where neither images nor the method set one
    # What set it: "names" (the method's zero-shot rule), "images" at fit, or "calibration".
    threshold_source_: str
    contamination_: float | None = None  # the proportion asked for at fit, if it was one
    decision_scores_: np.ndarray
    calibration_scores_: np.ndarray | None
    calibration_n_seen_: int | None
    # By class: "shrunk", "strict" or None, and the nearest class of each calibration image.
    calibration_by_class_: str | None
    calibration_classes_: np.ndarray | None

    def _zero_shot_doubt(self) -> str:
        """Why no rule is known to hold for the zero-shot threshold; empty where one does."""
        return ""

    def _score_unit(self) -> float:
        """Score difference that counts as one unit of log-odds (1 for logs and log-odds)."""
        return 1.0

    def _n_learned(self) -> int:
        """Test images that the present state was learned from (most methods: none)."""
        return 0

    def _is_transductive(self) -> bool:
        """Whether ``decision_function`` scores a row together with the other rows of X."""
        return False

    # -- threshold ----------------------------------------------------------------------------

    def _check_contamination(self, *, with_images: bool) -> None:
        """Refuse a contamination that no image can serve."""
        if not with_images and not isinstance(self.contamination, str):
            raise ValueError(
                f"contamination={self.contamination!r} needs images: fit(X, y) with X images or "
                'embeddings, or use contamination="auto", or calibrate(X_id) after fit.'
            )

    def _set_threshold(
        self, rows: np.ndarray | None, failed: np.ndarray | None, is_ood: np.ndarray | None
    ) -> None:
        """Set ``decision_scores_``, ``labels_`` and ``threshold_`` from the rows given to fit."""
        # A fit ends the calibration of an earlier one.
        self.calibration_scores_ = self.calibration_n_seen_ = None
        self.calibration_by_class_ = self.calibration_classes_ = None
        self.threshold_source_ = "images"
        self.contamination_ = None
        if isinstance(self.contamination, Real):
            self.contamination_ = float(self.contamination)
        _have_warned.discard(self)

        if rows is None or failed is None:
            self.decision_scores_ = np.empty(0)
            self.threshold_ = self._by_names()
        else:
            self.decision_scores_ = -self._score_rows(rows, failed)
            self.threshold_ = self._threshold_from(self.decision_scores_, ~failed, is_ood)

        self.labels_ = np.empty(0, dtype=int)
        if self.threshold_ is not None:
            self.labels_ = self._flag(self.decision_scores_)

    def _threshold_from(
        self, scores: np.ndarray, usable: np.ndarray, is_ood: np.ndarray | None
    ) -> float | None:
        """The rule of `contamination`; rows known to be OOD are left out."""
        keep = usable if is_ood is None else usable & ~is_ood
        auto = isinstance(self.contamination, str)

        # "auto": rows known to be ID, else the method's rule where it holds or no row is left to
        # set another threshold, else PyOD's default.
        if auto and is_ood is not None and keep.any():
            threshold = thresholds.quantile_threshold(scores[keep], keep=_KEPT)
            return thresholds.midpoint_above(threshold, scores[keep])
        by_rows = keep.any() and self._zero_shot_doubt()
        if auto and self._zero_shot_threshold() is not None and not by_rows:
            return self._by_names()

        if not keep.any():
            raise ValueError(
                f"No usable row sets the threshold: every row of X (n_samples={len(scores)}) is "
                "known to be OOD or unreadable. Add ID rows, or fit without X and call "
                "calibrate(X_id)."
            )
        rule = thresholds.contamination_threshold
        return self._threshold_by(rule, scores[keep], _PYOD_CONTAMINATION)

    def _threshold_for_new(self, scores: np.ndarray) -> float:
        """The rule of `contamination` for scores of ID images that the method is not made of."""
        return self._threshold_by(thresholds.expected_threshold, scores, _FLAGGED)

    def _threshold_by(
        self, rule: Callable[[np.ndarray, float], float], scores: np.ndarray, auto: float
    ) -> float:
        """Threshold of a rule, by default for the proportion `auto`; or of a thresholder."""
        if isinstance(self.contamination, str):
            return rule(scores, auto)
        if isinstance(self.contamination, Real):
            return rule(scores, float(self.contamination))
        return thresholds.threshold_from_pythresh(self.contamination, scores)

    def _by_names(self) -> float | None:
        """The zero-shot threshold, after a note that it is one."""
        self.threshold_source_ = "names"
        return self._zero_shot_threshold()

    def _flag(self, scores: np.ndarray) -> np.ndarray:
        """1 = OOD where the score is above the threshold, or NaN (not known to be ID)."""
        return (~(scores <= self.threshold_)).astype(int)

    def _check_threshold(self) -> None:
        """Raise if there is nothing to decide by; warn if its error rate is not known."""
        check_is_fitted(self, "decision_scores_")
        if self.threshold_ is None:
            raise ValueError(
                f"{type(self).__name__} has no zero-shot threshold: call calibrate(X_id) with ID "
                "images, or fit(X) with images. Scores (decision_function) need no threshold."
            )

        if self.threshold_source_ == "names" and self not in _have_warned:
            _have_warned.add(self)
            warn(self._uncalibrated_message(), UncalibratedThresholdWarning)
        self._warn_uncalibrated()

    def _uncalibrated_message(self) -> str:
        """What there is to say of a zero-shot threshold."""
        return zero_shot.uncalibrated_message(type(self).__name__, self._zero_shot_doubt())

    def _warn_uncalibrated(self) -> None:
        """Warn if scores no longer come from the rule that the calibration images met."""
        if self.calibration_scores_ is None:
            return

        if self._n_learned() != self.calibration_n_seen_:
            warn(
                f"{type(self).__name__} has changed its state since calibrate "
                f"(n_seen_={self._n_learned()}, then {self.calibration_n_seen_}): the calibrated "
                "rate is not guaranteed. Call calibrate(X_id) again.",
                CalibrationWarning,
            )
        elif self._is_transductive():
            warn(
                f"{type(self).__name__} was calibrated with its state frozen, but "
                "adaptation='transductive' scores every image together with the others of X: the "
                "proportion of ID images kept is not guaranteed. Use "
                "set_params(adaptation='frozen') for the guarantee.",
                CalibrationWarning,
            )

    # -- decisions ----------------------------------------------------------------------------

    @overload
    def predict(
        self, X: Any, return_confidence: Literal[False] = False, level: float | None = None
    ) -> np.ndarray: ...

    @overload
    def predict(
        self, X: Any, return_confidence: Literal[True], level: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def predict(
        self, X: Any, return_confidence: bool = False, level: float | None = None
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Flag OOD rows, by the threshold or at a guaranteed level.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).
        return_confidence : bool, default=False
            Also return :meth:`predict_confidence` (needs images at fit).
        level : float or None, default=None
            alpha: flag where :meth:`p_value` is at most this, so that an ID image is flagged with
            probability at most alpha; needs :meth:`calibrate`. None = by ``threshold_``.

        Returns
        -------
        ndarray of shape (n,), int
            0 = ID, 1 = OOD (also for an unreadable image: it is not known to be ID).
        confidence : ndarray of shape (n,)
            Only if `return_confidence`.

        Raises
        ------
        ValueError
            If neither the method nor images have set a threshold. If `level` needs
            more calibration images, or the scores depend on the images scored (a state that has
            changed since :meth:`calibrate`, or ``adaptation="transductive"``).
        """
        if level is None:
            scores, labels = self._decisions(X)
        else:
            scores, labels = self._decisions_at(level, X)
        return (labels, self._confidence(scores, labels)) if return_confidence else labels

    def _decisions(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Scores of X, and labels by the threshold."""
        self._check_threshold()
        scores = self.decision_function(X)
        return scores, self._flag(scores)

    def _decisions_at(self, level: float, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Scores of X, and labels by p-values."""
        known = self._calibrated_scores("predict(level=)")
        if self._is_transductive():
            raise ValueError(
                "predict(level=) has no guarantee to give with adaptation='transductive', where "
                "scores depend on the other images of X: use set_params(adaptation='frozen')."
            )
        conformal.check_level(level, self._largest_stratum(known))

        scores, p_values = self._scores_and_p_values(X, known)
        return scores, (~(p_values > level)).astype(int)

    def predict_confidence(self, X: Any) -> np.ndarray:
        """How surely each row would get the same label had fit seen other images (PyOD's).

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).

        Returns
        -------
        ndarray of shape (n,)
            In [0, 1]; NaN for an unreadable image.

        Raises
        ------
        ValueError
            If ``fit`` was given no images.

        References
        ----------
        Perini et al., "Quantifying the confidence of anomaly detectors in their example-wise
        predictions", ECML PKDD 2020.
        """
        return self._confidence(*self._decisions(X))

    def _fit_scores(self, what: str) -> np.ndarray:
        """OOD scores of the readable images given to fit."""
        known = self.decision_scores_[~np.isnan(self.decision_scores_)]
        if not len(known):
            raise ValueError(
                f"{what} compares with the scores of images given to fit, and there were none: "
                "fit(X)."
            )
        return known

    def _confidence(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Confidence of labels that were given to scores."""
        known = self._fit_scores("The confidence")

        contamination = self._proportion_flagged(known)
        return thresholds.prediction_confidence(scores, known, labels, contamination)

    def _proportion_flagged(self, known: np.ndarray) -> float:
        """How many of the fit's rows are flagged: as asked for, or as it came out."""
        if self.contamination_ is not None:
            return self.contamination_
        return float(np.mean(known > self.threshold_))

    @overload
    def predict_proba(
        self, X: Any, method: str = "logistic", return_confidence: Literal[False] = False
    ) -> np.ndarray: ...

    @overload
    def predict_proba(
        self, X: Any, method: str = "logistic", *, return_confidence: Literal[True]
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def predict_proba(
        self, X: Any, method: str = "logistic", return_confidence: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Map scores to (0, 1); **not** a calibrated probability of being OOD.

        How many images are OOD is unknown to a zero-shot detector, and so is any true probability.
        For calibrated ones use ``CalibratedClassifierCV(OODClassifier(detector))`` on labelled
        images; for a guaranteed error rate :meth:`calibrate` and :meth:`p_value`.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).
        method : {"logistic", "linear", "unify"}, default="logistic"
            "logistic": ``expit((decision_function(X) - threshold_) / u)``, with u = 1 for scores
            that are logs or log-odds and u = the temperature for cosines and energies: above 0.5
            exactly where ``predict`` is 1. "linear" and "unify": PyOD's two maps, by the scores of
            the images given to fit; PyOD's own default is "linear", which needs such images.
        return_confidence : bool, default=False
            Also return :meth:`predict_confidence`.

        Returns
        -------
        ndarray of shape (n, 2)
            Columns [ID, OOD]; rows sum to 1. NaN for an unreadable image.
        confidence : ndarray of shape (n,)
            Only if `return_confidence`.

        Raises
        ------
        ValueError
            If `method` is none of these, there is no threshold, or "linear" and "unify" have no
            images of fit to compare with.
        """
        if method not in ("logistic", "linear", "unify"):
            raise ValueError(f'method={method!r} must be "logistic", "linear" or "unify".')

        scores, labels = self._decisions(X)

        if method == "logistic":
            ood = thresholds.logistic_probability(scores, self.threshold_, self._score_unit())
        else:
            known = self._fit_scores(f'predict_proba(method="{method}")')
            linear = method == "linear"
            convert = thresholds.linear_probability if linear else thresholds.unify_probability
            ood = convert(scores, known)

        proba = np.column_stack([1 - ood, ood])
        return (proba, self._confidence(scores, labels)) if return_confidence else proba

    def predict_class(self, X: Any) -> np.ndarray:
        """Zero-shot class name of each row, or ``ood_label`` where :meth:`predict` is 1.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us).

        Returns
        -------
        ndarray of shape (n,), str
        """
        self._check_threshold()

        # Embedded once, for the decision and for the class.
        rows, failed = self._embed(X, reset=False)
        flagged = self._flag(-self._score_rows(rows, failed)) == 1
        names = np.where(flagged, self.ood_label, self._nearest_class(rows, failed))
        return np.asarray(names).astype(str)

    # -- guarantees from calibration images ---------------------------------------------------

    def calibrate(
        self,
        X_id: Any,
        id_tpr: float | None = None,
        *,
        false_alarm_rate: float | None = None,
        by_class: Literal["shrunk", "strict"] | None = None,
    ) -> Self:
        """Set the threshold to flag a new ID image with probability at most `false_alarm_rate`.

        With ``id_tpr = 1 - false_alarm_rate``, the ``ceil((n + 1) * id_tpr)``-th smallest of the n
        scores (split conformal; marginal over calibration and test draw, exchangeable ID images).
        The images also serve :meth:`p_value`, :meth:`e_value` and :meth:`drift_alarm`. They are
        assumed clean: a mislabelled one makes all of these more lenient. Images used at fit do not
        count as calibration.

        Parameters
        ----------
        X_id : images or array-like of shape (n, D)
            ID images that were used for nothing else: neither for the fit nor for tuning.
        id_tpr : float or None, default=None
            Proportion of ID images to keep, in (0, 1); None = 0.95, unless `false_alarm_rate` says
            another.
        false_alarm_rate : float or None, default=None
            The same said the other way round: proportion of ID images that may be flagged, in
            (0, 1).
        by_class : {"shrunk", "strict"} or None, default=None
            How :meth:`p_value` and ``predict(level=)`` compare images; ``threshold_`` is one number
            for all classes either way. None: all with all, so that single classes with bad names
            may be flagged several times as often as others. "shrunk": mostly with images of the
            same predicted class, which evens classes out; exact over all classes together, **no
            guarantee for a single class**. "strict": only with images of the same predicted class,
            and the classes with fewer than 20 images with each other: a guarantee in each such
            stratum, of use from some 25 images a class on. The images must come in the proportions
            in which classes will be met.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If n is too small, both proportions are given, one is not in (0, 1), or `by_class` is
            none of these.
        """
        check_is_fitted(self, "decision_scores_")
        kept = conformal.kept_proportion(id_tpr, false_alarm_rate)
        if by_class is not None and by_class not in class_conditional.FORMS:
            raise ValueError(f'by_class={by_class!r} must be "shrunk", "strict" or None.')

        # Too few are too few whatever they score: said before they are embedded.
        if hasattr(X_id, "__len__"):
            conformal.calibration_threshold(np.zeros(len(X_id)), kept)

        # With its state frozen, also in a method that adapts: a calibration image must not have
        # moved what it is scored by. An unreadable one is an error, raised with the threshold.
        rows, _, scores = self._frozen_scores(X_id)
        order = np.argsort(scores, kind="stable")
        with all_or_nothing(self):
            self.threshold_ = conformal.calibration_threshold(scores, kept)
            self.calibration_scores_ = scores[order]
            self.calibration_by_class_ = by_class
            self.calibration_classes_ = None if by_class is None else self._class_index(rows)[order]
            self.calibration_n_seen_ = self._n_learned()
            self.threshold_source_ = "calibration"
            self.labels_ = self._flag(self.decision_scores_)
            self._finish_calibration(rows)
        return self

    def _finish_calibration(self, rows: np.ndarray) -> None:
        """Keep what else a method needs of its calibration images, all of them readable."""

    def _calibrated_scores(self, what: str) -> np.ndarray:
        """Scores of the calibration images; refused if the state has changed since."""
        check_is_fitted(self, "decision_scores_")
        if self.calibration_scores_ is None:
            raise ValueError(
                f"{what} needs calibration scores: call calibrate(X_id) first, with ID images that "
                "were used for nothing else (images given to fit do not count). Without them there "
                "is no guarantee to give."
            )
        if self._n_learned() != self.calibration_n_seen_:
            raise ValueError(
                f"{what}: the detector has learned from test images since calibrate, so that its "
                "scores may depend on the image scored and the guarantee is void. Call "
                "reset_adaptation() or set adaptation='frozen', then calibrate(X_id) again."
            )
        return self.calibration_scores_

    def _frozen_scores(self, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Embedded rows, which could not be read, and OOD scores, each row on its own."""
        rows, failed = self._embed(X, reset=False)
        return rows, failed, -self._score_rows(rows, failed, frozen=True)

    def p_value(self, X: Any) -> np.ndarray:
        """Conformal p-value of "this image is ID", from the images given to :meth:`calibrate`.

        ``(1 + #{calibration scores >= score}) / (n + 1)``, or by class if :meth:`calibrate` was
        asked for that. For an ID image, exchangeable with the n
        calibration images, ``P(p <= alpha) <= alpha`` for every alpha and every n, over the draw of
        both (Bates et al., 2023). P-values of several images depend on each other through the
        calibration set. They are usually more powerful than :meth:`e_value`, which can be averaged.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us). Test-time methods score them with their state
            frozen.

        Returns
        -------
        ndarray of shape (n,)
            In [1 / (n + 1), 1]; small = unlike ID. NaN for an unreadable image.

        Raises
        ------
        ValueError
            Before :meth:`calibrate`, or if the state has changed since: there is no guarantee to
            give then.

        References
        ----------
        Bates et al., "Testing for outliers with conformal p-values", Annals of Statistics 2023.
        """
        known = self._calibrated_scores("p_value")
        return self._scores_and_p_values(X, known)[1]

    def _largest_stratum(self, known: np.ndarray) -> int:
        """Calibration images that a p-value counts, where they are most: 1 / (n + 1) is least."""
        if self.calibration_by_class_ == "strict":
            return class_conditional.largest_stratum(self.calibration_classes_)
        return len(known)

    def _scores_and_p_values(self, X: Any, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """OOD scores, each row on its own, and p-values in the form chosen in calibrate."""
        rows, failed, scores = self._frozen_scores(X)
        if self.calibration_by_class_ is None:
            return scores, conformal.conformal_p_values(scores, known)

        p_values = np.full(len(scores), np.nan)
        form = class_conditional.FORMS[self.calibration_by_class_]
        readable = ~failed
        if readable.any():
            classes = self._class_index(rows[readable])
            p_values[readable] = form(scores[readable], classes, known, self.calibration_classes_)
        return scores, p_values

    def e_value(self, X: Any) -> np.ndarray:
        """Conformal e-value of "this image is ID", from the images given to :meth:`calibrate`.

        ``(n + 1) v / (v + sum_i v_i)`` with ``v = exp(decision_function / u)``, u = 1 for scores
        that are logs or log-odds and u = the temperature for cosines and energies. For an ID image,
        exchangeable with the n calibration images, its mean is at most 1, hence ``P(e >= 1 / alpha)
        <= alpha``, over the draw of both. It is at most n + 1.

        Parameters
        ----------
        X : images or array-like of shape (n, D)
            Images, or embeddings (normalised by us), scored with the state frozen.

        Returns
        -------
        ndarray of shape (n,), float64
            Large = unlike ID. NaN for an unreadable image.

        Raises
        ------
        ValueError
            Before :meth:`calibrate`, or if the state has changed since.

        References
        ----------
        Vovk, "Conformal e-prediction", Pattern Recognition 2025, arXiv:2001.05989.
        """
        known = self._calibrated_scores("e_value")

        # In units of log-odds: of cosines, which differ by hundredths, exp would tell nothing.
        unit = self._score_unit()
        return conformal.conformal_e_values(self._frozen_scores(X)[2] / unit, known / unit)

    def drift_alarm(
        self, *, alpha: float = 0.01, random_state: Any = 0
    ) -> conformal.ConformalTestMartingale:
        """Start a drift alarm for a stream of images.

        It goes off *ever* with probability at most alpha, as long as the stream is exchangeable
        with the calibration images. Feed it ``alarm.update(det.decision_function(batch))``; a
        test-time method with ``adaptation="frozen"`` and no ``partial_fit`` in between.

        Parameters
        ----------
        alpha : float, default=0.01
            Bound on the probability of a false alarm, ever.
        random_state : int, RandomState instance or None, default=0
            Breaks ties.

        Returns
        -------
        ConformalTestMartingale
            See :class:`~dnm_sklearn.calibration.conformal.ConformalTestMartingale`.

        Raises
        ------
        ValueError
            Before :meth:`calibrate`, or if the state has changed since.
        """
        known = self._calibrated_scores("drift_alarm")
        return conformal.ConformalTestMartingale(known, alpha=alpha, random_state=random_state)
