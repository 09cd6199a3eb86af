"""ENL's pure functions against naive float64 twins, and their properties."""

import numpy as np
import pytest
from scipy.special import logsumexp

from dnm_sklearn.scoring import _chunks, enl, enl_prior, negative_label_log_odds
from dnm_sklearn.scoring.enl_prior import (
    ZeroShotPrior,
    trusted_images,
    zero_shot_log_expectation,
)
from dnm_sklearn.scoring.mining import negative_proportion

T = 0.05


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def use_chunks_of(numbers, monkeypatch):
    """Cut all products into chunks of so many logits."""
    monkeypatch.setitem(_chunks.CHUNK_NUMBERS, "cpu", numbers)
    monkeypatch.setitem(_chunks.ROW_NUMBERS, "cpu", numbers)
    monkeypatch.setattr(_chunks, "BLOCK_NUMBERS", numbers)


@pytest.fixture
def world():
    """K = 5 classes of which 4 have images, N = 40 corpus labels, 17 ID images."""
    rng = np.random.default_rng(0)
    ids, corpus = unit(rng.normal(size=(5, 12))), unit(rng.normal(size=(40, 12)))
    index = rng.integers(0, 4, size=17)
    image = unit(ids[index] + 0.3 * rng.normal(size=(17, 12)))
    return ids, corpus, image, index


def naive_ratios(image, bank, corpus, temperature=T):
    out = np.empty((len(image), len(corpus)))
    for i, x in enumerate(image):
        mass = sum(np.exp(x @ b / temperature) for b in bank)
        for j, n in enumerate(corpus):
            out[i, j] = np.exp(x @ n / temperature) / mass
    return out


def naive_prior(ids, corpus, mu, clip, slope=0.5, spread=0.035, temperature=T):
    out = np.empty((len(ids), len(corpus)))
    for k, t in enumerate(ids):
        m = mu + slope * (t - corpus.mean(axis=0))
        for j, n in enumerate(corpus):
            out[k, j] = (n - t) @ m / temperature + spread**2 * (1 - n @ t) / temperature**2
    return out if clip is None else np.minimum(out, clip)


def naive_stratified(ratios, index, z, shift, n0):
    total = 0
    for k in range(len(z)):
        own = ratios[index == k]
        total = total + (own.sum(axis=0) + n0 * np.exp(z[k] + shift)) / (len(own) + n0)
    return total / len(z)


def naive_shift(ratios, index, z):
    covered = np.unique(index)
    own = np.log(sum(ratios[index == k].mean(axis=0) for k in covered))
    return np.median(own - np.log(np.exp(z[covered]).sum(axis=0)))


def test_score_is_the_formula(world, monkeypatch):
    ids, corpus, image, _ = world
    rng = np.random.default_rng(1)
    log_e, weights = rng.normal(size=40), rng.uniform(size=40)
    expected = -np.log((weights * naive_ratios(image, ids, corpus) / np.exp(log_e)).mean(axis=1))
    got = enl.expectation_score(
        image, ids, corpus, log_e, temperature=T, log_weights=np.log(weights)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    monkeypatch.setitem(_chunks.MOST_ROWS, "cpu", 1)
    by_one = enl.expectation_score(
        image, ids, corpus, log_e, temperature=T, log_weights=np.log(weights)
    )
    np.testing.assert_allclose(by_one, got, atol=1e-9)


def test_without_expectation_and_weights_it_is_neglabel_with_one_group(world):
    ids, corpus, image, _ = world
    want = negative_label_log_odds(image, ids, corpus, temperature=T) + np.log(len(corpus))
    np.testing.assert_allclose(
        enl.expectation_score(image, ids, corpus, temperature=T), want, atol=1e-9
    )


def test_weights_of_zero_drop_labels(world):
    ids, corpus, image, _ = world
    log_w = np.where(np.arange(40) < 10, 0.0, -np.inf)
    got = enl.expectation_score(image, ids, corpus, temperature=T, log_weights=log_w)
    want = enl.expectation_score(image, ids, corpus[:10], temperature=T) + np.log(40 / 10)
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_expectation_of_one_class_without_a_guess_is_the_mean(world):
    ids, corpus, image, _ = world
    log_sums = enl.class_logsumexp(image, ids, temperature=T)
    prior = ZeroShotPrior(ids[:1], image.mean(axis=0), strength=0.0)
    strata = {"class_index": np.zeros(17, dtype=int), "prior": prior}
    log_e = enl.expectation(image, log_sums, corpus, temperature=T, **strata).log_mean
    ratios = naive_ratios(image, ids, corpus)
    np.testing.assert_allclose(log_e, np.log(ratios.mean(axis=0)), rtol=1e-10)
    # The fit images' mean of r_j / E_j is 1 for every label.
    np.testing.assert_allclose((ratios / np.exp(log_e)).mean(axis=0), 1, rtol=1e-6)
    mean = np.exp(-enl.expectation_score(image, ids, corpus, log_e, temperature=T)).mean()
    assert mean == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("n0", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("numbers", [2**22, 60])
def test_stratified_expectation(world, n0, numbers, monkeypatch):
    use_chunks_of(numbers, monkeypatch)
    ids, corpus, image, index = world
    mu = image.mean(axis=0)
    prior = ZeroShotPrior(ids, mu, strength=n0)
    mass = enl.class_logsumexp(image, ids, temperature=T)
    got = enl.expectation(image, mass, corpus, temperature=T, class_index=index, prior=prior)
    ratios, z = naive_ratios(image, ids, corpus), naive_prior(ids, corpus, mu, 5.0)
    shift = naive_shift(ratios, index, z)
    assert got.shift == pytest.approx(shift, rel=1e-9)
    np.testing.assert_allclose(
        got.log_mean, np.log(naive_stratified(ratios, index, z, shift, n0)), rtol=1e-9
    )


def test_names_only_expectation_has_no_clip(world):
    ids, corpus, _, _ = world
    mu = np.full(12, 0.8)
    prior = ZeroShotPrior(ids, mu, slope=2.0, clip=-1.0)
    got = zero_shot_log_expectation(prior, corpus, temperature=T)
    want = logsumexp(naive_prior(ids, corpus, mu, None, slope=2.0), axis=0) - np.log(5)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("level", [0.25, 0.5, 1.0])
def test_proportion_of_negatives_against_a_loop(level):
    rng = np.random.default_rng(3)
    ids = unit(rng.normal(size=(9, 4))).astype(np.float32)
    corpus = unit(rng.normal(size=(50, 4))).astype(np.float32)
    nearest = [max(float(a @ b) for j, b in enumerate(ids) if j != i) for i, a in enumerate(ids)]
    below = 0
    for label in corpus:
        closest = max(float(label @ a) for a in ids)
        below += np.mean([value >= closest - 1e-6 for value in nearest]) < level
    assert negative_proportion(ids, corpus, level=level) == pytest.approx(
        max(1 - below / 50 / level, 1 / 50)
    )


@pytest.mark.parametrize("proportion", [0.0, 0.3, 0.7, 1.0])
def test_proportion_of_negatives_finds_a_known_mixture(proportion):
    rng = np.random.default_rng(4)
    width, n_labels = 24, 4000
    topic = np.zeros(width)
    topic[0] = 1

    def like_id(n):
        return unit(topic + 0.25 * rng.normal(size=(n, width)))

    n_negative = int(proportion * n_labels)
    far = unit(rng.normal(size=(n_negative, width)) - topic)
    corpus = np.concatenate([like_id(n_labels - n_negative), far])
    estimates = [negative_proportion(like_id(150), corpus) for _ in range(5)]
    assert np.mean(estimates) == pytest.approx(proportion, abs=0.12)


def test_proportion_of_negatives_says_what_it_needs():
    with pytest.raises(ValueError, match="at least 2 class names and 1 corpus label, got 1 and 3"):
        negative_proportion(np.eye(1, 3), np.eye(3))
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\], got 0"):
        negative_proportion(np.eye(3), np.eye(3), level=0)


@pytest.mark.parametrize("n0", [0.25, 1.0])
def test_leave_one_out_is_a_refit_without_the_image(world, n0):
    ids, corpus, image, index = world
    log_sums = enl.class_logsumexp(image, ids, temperature=T)
    ratios = naive_ratios(image, ids, corpus)
    prior = ZeroShotPrior(ids, image.mean(axis=0), strength=n0)
    strata = {"class_index": index, "prior": prior}
    shift = enl.expectation(image, log_sums, corpus, temperature=T, **strata).shift
    got = enl.leave_one_out_scores(image, log_sums, corpus, temperature=T, shift=shift, **strata)
    z = naive_prior(ids, corpus, image.mean(axis=0), 5.0)
    for i in range(len(image)):
        keep = np.arange(len(image)) != i
        mean = naive_stratified(ratios[keep], index[keep], z, shift, n0)
        assert got[i] == pytest.approx(-np.log((ratios[i] / mean).mean()), rel=1e-8)


@pytest.mark.parametrize("temperature", [0.02, 0.005])
def test_leave_one_out_where_one_image_holds_nearly_all_of_a_sum(world, temperature):
    """Ratios of exp(100) and more, as on models whose cosines differ much: no rounding is left."""
    ids, corpus, image, index = world
    log_sums = enl.class_logsumexp(image, ids, temperature=temperature)
    prior = ZeroShotPrior(ids, image.mean(axis=0))
    strata = {"class_index": index, "prior": prior, "shift": 0.5}
    got = enl.leave_one_out_scores(image, log_sums, corpus, temperature=temperature, **strata)
    log_ratios = image @ corpus.T / temperature - log_sums[:, None]
    z = naive_prior(ids, corpus, image.mean(axis=0), 5.0, temperature=temperature) + 0.5
    for i in range(len(image)):
        # Log of the mean over classes, each of the guess and its images without i.
        classes = []
        for k in range(len(ids)):
            own = [j for j in range(len(image)) if index[j] == k and j != i]
            log_sum = logsumexp([z[k], *log_ratios[own]], axis=0)
            classes.append(log_sum - np.log(len(own) + 1))
        log_mean = logsumexp(classes, axis=0) - np.log(len(ids))
        want = np.log(len(corpus)) - logsumexp(log_ratios[i] - log_mean)
        assert got[i] == pytest.approx(want, rel=1e-8)


def test_leave_one_out_of_one_image_leaves_the_guess_from_names(world):
    ids, corpus, image, index = world
    log_sums = enl.class_logsumexp(image[:1], ids, temperature=T)
    prior = ZeroShotPrior(ids, image[0])
    strata = {"class_index": index[:1], "prior": prior, "shift": 0.5}
    got = enl.leave_one_out_scores(image[:1], log_sums, corpus, temperature=T, **strata)
    guess = np.exp(naive_prior(ids, corpus, image[0], 5.0) + 0.5).mean(axis=0)
    want = -np.log((naive_ratios(image[:1], ids, corpus)[0] / guess).mean())
    assert got[0] == pytest.approx(want, rel=1e-8)


def test_prototypes_and_their_masses(world):
    ids, _, image, index = world
    fallback = np.ones((5, 12))
    prototypes, left = enl.class_prototypes(image, index, fallback)
    for k in range(4):
        np.testing.assert_allclose(prototypes[k], unit(image[index == k].mean(axis=0)))
    np.testing.assert_allclose(prototypes[4], unit(fallback[4]))
    i = int(np.argmax(np.bincount(index)[index] > 1))
    others = (index == index[i]) & (np.arange(17) != i)
    np.testing.assert_allclose(left[i], unit(image[others].mean(axis=0)))
    own = ids[index] + 0.1 * left
    got = enl.class_logsumexp(
        image, ids + 0.1 * prototypes, temperature=T, own_class=index, own_row=own
    )
    bank = ids + 0.1 * prototypes
    bank[index[i]] = own[i]
    assert got[i] == pytest.approx(logsumexp(image[i] @ bank.T / T), rel=1e-12)


def test_order_and_repetition_of_labels_change_nothing(world):
    ids, corpus, image, index = world
    prior = ZeroShotPrior(ids, image.mean(axis=0))
    mass = enl.class_logsumexp(image, ids, temperature=T)

    def scores(labels):
        log_e = enl.expectation(
            image, mass, labels, temperature=T, class_index=index, prior=prior
        ).log_mean
        return enl.expectation_score(image, ids, labels, log_e, temperature=T)

    want = scores(corpus)
    np.testing.assert_allclose(scores(corpus[::-1]), want, atol=1e-9)
    np.testing.assert_allclose(scores(np.repeat(corpus, 3, axis=0)), want, atol=1e-9)


def test_far_logits_stay_finite_and_ordered():
    ids, corpus = np.eye(2, 4), np.eye(4)[2:]
    image = unit(np.array([[1.0, 0, a, 0] for a in (0.0, 0.3, 0.9, 3.0)]))
    scores = enl.expectation_score(image, ids, corpus, np.array([-800.0, 0.0]), temperature=0.001)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) < 0).all()


# -- which ID images to trust ----------------------------------------------------------------------


def naive_trusted(image, index, ids, corpus, mu, proportion):
    weights = enl_prior.names_only_weights(ids, corpus)
    guess = np.exp(naive_prior(ids, corpus, mu, None)).mean(axis=0)
    score = []
    for x, y in zip(image, index, strict=True):
        mass = np.mean(
            [w * np.exp(x @ n / T) / z for w, n, z in zip(weights, corpus, guess, strict=True)]
        )
        score.append(x @ ids[y] / T - np.log(mass))
    low = set(sorted(range(len(score)), key=score.__getitem__)[: int(proportion * len(score))])
    trusted, usual = [], np.median(np.unique(index, return_counts=True)[1])
    for i, x in enumerate(image):
        own = sorted(
            (j for j in range(len(image)) if index[j] == index[i]), key=lambda j: -score[j]
        )
        vouched = i in own[: int(np.ceil(min(len(own), usual) / 3))]
        if len(own) == 1:
            vouched = max(range(len(ids)), key=lambda k: x @ ids[k]) == index[i]
        trusted.append(i not in low or vouched)
    return np.array(trusted)


@pytest.mark.parametrize("proportion", [0.1, 0.3, 0.49, 0.9])
@pytest.mark.parametrize("numbers", [2**22, 60])
def test_trusted_images_are_those_of_the_naive_rule(proportion, numbers, monkeypatch):
    use_chunks_of(numbers, monkeypatch)
    rng = np.random.default_rng(2)
    ids, corpus = unit(rng.normal(size=(6, 12))), unit(rng.normal(size=(40, 12)))
    index = np.r_[
        rng.integers(0, 4, size=40), 4, 5
    ]  # the last two classes have one image, the very last a wrong one
    image = unit(ids[index] + 0.4 * rng.normal(size=(42, 12)))
    image[-1] = ids[0] - 0.1 * ids[5]
    image[rng.choice(40, 12, replace=False)] = unit(rng.normal(size=(12, 12)))
    mu = image.mean(axis=0)
    got = trusted_images(
        image,
        index,
        ZeroShotPrior(ids, mu, strength=3.0),
        corpus,
        temperature=T,
        proportion=proportion,
    )
    want = naive_trusted(image, index, ids, corpus, mu, proportion)
    np.testing.assert_array_equal(got, want)
    assert 0 < (~got).sum() <= int(proportion * 42)
    assert proportion < 0.9 or (got[-2] and not got[-1])


def test_trust_spares_a_third_of_each_class_and_follows_permutations():
    rng = np.random.default_rng(3)
    ids, corpus = unit(rng.normal(size=(3, 16))), unit(rng.normal(size=(50, 16)))
    index = np.repeat([0, 1, 2], [7, 4, 9])
    image = unit(ids[index] + 0.2 * rng.normal(size=(20, 16)))
    image[index == 1] = unit(
        corpus[:4] + 0.1 * rng.normal(size=(4, 16))
    )  # a class whose name says nothing of it
    prior = ZeroShotPrior(ids, image.mean(axis=0))

    def trust(order, proportion):
        return trusted_images(
            image[order], index[order], prior, corpus, temperature=T, proportion=proportion
        )

    got = trust(np.arange(20), 0.2)
    assert np.bincount(index[got]).tolist() == [7, 2, 9]
    order = rng.permutation(20)
    np.testing.assert_array_equal(trust(order, 0.2), got[order])
    assert np.bincount(index[trust(order, 0.999)[np.argsort(order)]]).min() >= 2
    assert trust(order, 0).all()
    assert trust(order, 0.049).all()  # not a whole image
