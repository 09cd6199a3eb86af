"""Jobs on a local Ray with two workers: the same numbers, and nothing lost."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ray_jobs import CLASSES, N_IMAGES, WORDS, content_of, read
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from dnm_sklearn import (
    AdaNegDetector,
    DictionaryDetector,
    EmbeddingTable,
    MCMDetector,
    NegLabelDetector,
    make_ood_pipeline,
)
from dnm_sklearn.distributed import adapt, embed, jobs, score
from dnm_sklearn.metrics import auroc_scorer
from dnm_sklearn.testing import FakeEmbedder

ray = pytest.importorskip("ray")
# One cluster for all of them.
pytestmark = pytest.mark.xdist_group("ray")

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "distributed.rst"
BLOCKS = re.findall(r"^\.\. code-block:: py\n\n((?:   .*\n|\n)+)", PAGE.read_text(), re.MULTILINE)


def expected(detector, paths):
    """What the detector says in this process."""
    quiet = FakeEmbedder(logit_scale=20.0, on_error="nan")
    rows = quiet.encode_image(paths)
    return detector.decision_function(rows[~np.isnan(rows).any(axis=1)])


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.UnreadableImageWarning")
def test_scores_are_those_of_one_process_and_nothing_is_lost(photos, detector, tmp_path):
    summary = score(photos, detector, tmp_path, workers=2, rows_per_partition=5, embeddings=True)
    table = read(tmp_path)

    paths = sorted(str(path) for path in photos.rglob("*") if path.suffix in (".png", ".jpg"))
    assert table.index.tolist() == paths
    readable = table["error"].isna().to_numpy()
    np.testing.assert_allclose(
        table["score"][readable], expected(detector, paths), rtol=1e-5, atol=1e-5
    )
    flags = table["score"][readable] > detector.threshold_
    assert (table["is_ood"][readable] == flags).all()
    assert (
        table["label"][readable] == np.where(flags, "ood", table["nearest_class"][readable])
    ).all()
    assert set(table["top_negative_label"][readable]) <= set(WORDS)

    # The unreadable image is listed, flagged and without a score.
    bad = table.loc[str(photos / "bad.jpg")]
    assert "cannot identify image" in bad["error"]
    assert bad["is_ood"]
    assert np.isnan(bad["score"])
    assert (summary.n_rows, summary.n_errors, summary.n_partitions) == (N_IMAGES, 1, 5)
    assert summary.n_flagged == flags.sum()
    assert "23 images (1 unreadable) in 5 partitions, 0 of them done before" in str(summary)

    # Embeddings are lists of one length, in half precision.
    kept = pq.read_table(tmp_path).column("embedding")
    assert kept.type == pa.list_(pa.field("element", pa.float16()), 32)


@pytest.mark.filterwarnings("ignore::dnm_sklearn.exceptions.UnreadableImageWarning")
def test_what_is_done_stays_and_what_is_missing_is_done(photos, detector, tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    detector = make_ood_pipeline(
        FakeEmbedder(logit_scale=20.0, log_path=str(log)),
        NegLabelDetector(CLASSES, corpus=WORDS, n_groups=1),
    ).fit()
    # Half of them are flagged.
    detector.calibrate(np.random.default_rng(1).standard_normal((40, 32)), id_tpr=0.5)

    score(photos, detector, out, rows_per_partition=5)
    whole = read(out)
    (out / "part-000002.parquet").unlink()
    before = content_of(out)
    log.unlink()

    summary = score(photos, detector, out, rows_per_partition=5)
    assert (summary.n_done_before, summary.n_rows, summary.n_rows_now) == (4, N_IMAGES, 5)
    assert summary.n_errors == 1
    # The unreadable image is flagged in the table, and counted as unreadable only.
    assert summary.n_flagged == whole["is_ood"].sum() - 1 > 0
    # Five images were embedded, and the other files are the same byte for byte.
    assert log.read_text().count("row") == 5
    assert before.items() <= content_of(out).items()
    assert read(out).equals(whole)


def test_an_output_of_another_job_is_refused(photos, detector, tmp_path):
    embed(photos / "trip", FakeEmbedder(), tmp_path)
    with pytest.raises(ValueError, match="results of another job"):
        embed(photos / "trip", FakeEmbedder(random_state=1), tmp_path)
    with pytest.raises(ValueError, match="results of another job"):
        score(photos / "trip", detector, tmp_path)


def test_a_job_is_of_its_images_its_model_its_detector_and_its_columns(
    photos, detector, tmp_path, monkeypatch
):
    """Nothing runs here: whose results a folder holds is said before."""
    monkeypatch.setattr(jobs, "run", lambda *args: None)
    paths = [str(path) for path in sorted(photos.glob("*.png"))]
    as_written = {"rows_per_partition": 5}
    score(paths, detector, tmp_path, **as_written)
    score(paths, detector, tmp_path, workers=2, batch_bytes=1000, **as_written)

    def fitted(**params):
        words = params.pop("corpus", WORDS)
        embedder = FakeEmbedder(logit_scale=20.0, **params)
        det = NegLabelDetector(CLASSES, embedder=embedder, corpus=words, n_groups=1).fit()
        return det.calibrate(np.random.default_rng(1).standard_normal((40, 32)))

    score(paths, fitted(), tmp_path, **as_written)
    others = [
        (paths[1:], detector, as_written),
        ([*paths[1:], paths[0]], detector, as_written),
        (paths, detector, {"rows_per_partition": 6}),
        (paths, detector, {"embeddings": True, **as_written}),
        (paths, fitted(corpus=WORDS[::-1]), as_written),
        (paths, fitted().calibrate(np.eye(32), id_tpr=0.5), as_written),
    ]
    for images, other, options in others:
        with pytest.raises(ValueError, match="results of another job"):
            score(images, other, tmp_path, **options)

    # The vectors of a detector are given; only the encoder of the images is another.
    of_others_images = fitted()
    of_others_images.embedder_ = FakeEmbedder(logit_scale=20.0, random_state=1)
    with pytest.raises(ValueError, match="results of another job"):
        score(paths, of_others_images, tmp_path, **as_written)


def test_settings_of_the_users_own_datasets_stay(photos, tmp_path):
    context = ray.data.DataContext.get_current()
    before = (context.enable_progress_bars, context.execution_options.preserve_order)
    context.enable_progress_bars = context.execution_options.preserve_order = True
    try:
        embed(photos / "trip", FakeEmbedder(), tmp_path)
        assert context.enable_progress_bars
        assert context.execution_options.preserve_order
    finally:
        context.enable_progress_bars, context.execution_options.preserve_order = before


def test_a_detector_without_a_threshold_flags_nothing(photos, tmp_path):
    det = DictionaryDetector(
        CLASSES, embedder=FakeEmbedder(), base=MCMDetector(), n_neighbors=2
    ).fit()
    assert det.threshold_ is None
    summary = score(photos / "trip", det, tmp_path)
    assert summary.n_flagged == 0
    table = read(tmp_path)
    assert table["is_ood"].isna().all()
    assert (table["label"] == table["nearest_class"]).all()


@pytest.mark.parametrize("block", BLOCKS[:2], ids=["score", "adapt"])
def test_the_pages_examples_run(block, tmp_path, monkeypatch, capsys):
    """Not among the tests of all pages: these need the cluster."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 0, 0)).save(f"photos/{i}.png")
    monkeypatch.setattr("dnm_sklearn.embedding.check.CLIPEmbedder", FakeEmbedder)
    exec(compile(textwrap.dedent(block), "distributed.rst", "exec"), {})
    if "print(summary)" in block:
        assert "8 images (0 unreadable) in 1 partitions" in capsys.readouterr().out


def test_what_partitions_learn_is_merged(photos):
    paths = sorted(str(path) for path in photos.glob("*.png"))
    det = AdaNegDetector(
        CLASSES, embedder=FakeEmbedder(logit_scale=20.0), corpus=WORDS, n_groups=1, gap=0.0
    ).fit()
    learned = adapt(paths, det, rows_per_partition=6, workers=2)
    assert learned.n_seen_ == len(paths)
    assert det.n_seen_ == 0

    # Its rule of what to remember is static: merged is what one stream would hold.
    rows = FakeEmbedder(logit_scale=20.0).encode_image(paths)
    whole = det.partial_fit(rows).set_params(adaptation="frozen").decision_function(rows)
    merged = learned.set_params(adaptation="frozen").decision_function(rows)
    np.testing.assert_allclose(merged, whole, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_done_is_said_before_anything_is_started(photos, detector, tmp_path):
    with pytest.raises(TypeError, match="does not learn from test images"):
        adapt(photos, detector)
    stateful = AdaNegDetector(CLASSES, embedder=FakeEmbedder(), corpus=WORDS, n_groups=1).fit()
    with pytest.raises(TypeError, match=r"dataset\.write_parquet\(folder\)"):
        adapt(ray.data.from_items([{"path": "a.png"}]), stateful)
    with pytest.raises(ValueError, match=r"format='zip' must be one of"):
        adapt(photos, stateful, format="zip")
    with pytest.raises(TypeError, match="needs a CLIPEmbedder, not EmbeddingTable"):
        embed(photos, EmbeddingTable(["cat"], np.eye(1)), tmp_path)
    with pytest.raises(ValueError, match=r"format='zip' must be one of"):
        embed(photos, FakeEmbedder(), tmp_path / "zip", format="zip")
    assert not (tmp_path / "zip").exists()
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        embed(tmp_path / "gone", FakeEmbedder(), tmp_path / "out")
    with pytest.raises(ValueError, match="on_error='skip'"):
        embed(photos, FakeEmbedder(), tmp_path, on_error="skip")

    (tmp_path / "both").mkdir()
    for name in ("a.parquet", "b.tar"):
        (tmp_path / "both" / name).touch()
    with pytest.raises(ValueError, match=r"holds parquet and webdataset: name what to read"):
        embed(tmp_path / "both", FakeEmbedder(), tmp_path / "out")

    pq.write_table(pa.table({"picture": [b""]}), tmp_path / "odd.parquet")
    with pytest.raises(ValueError, match="It has picture"):
        embed(tmp_path / "odd.parquet", FakeEmbedder(), tmp_path / "out")


def test_grids_run_on_dask_and_ray():
    """By the functions that the page shows, on a real LocalCluster and the local Ray."""
    page = {}
    exec(compile(textwrap.dedent(BLOCKS[2]), "distributed.rst", "exec"), page)

    rng = np.random.default_rng(0)
    text = np.eye(6)
    table = EmbeddingTable([*CLASSES, *WORDS[:4]], text)
    y = np.repeat([0, 1], 40)
    X = text[np.where(y == 0, rng.integers(0, 2, 80), rng.integers(2, 6, 80))]
    X = X + 0.3 * rng.standard_normal(X.shape)
    search = GridSearchCV(
        NegLabelDetector(CLASSES, embedder=table, n_groups=1),
        {"temperature": [0.05, 1.0]},
        scoring=auroc_scorer,
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
    )
    here = search.fit(X, y).cv_results_["mean_test_score"]
    for name in ("search_on_dask", "search_on_ray"):
        there = page[name](search, X, y).cv_results_["mean_test_score"]
        np.testing.assert_allclose(there, here)
