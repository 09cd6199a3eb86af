"""Embeddings of patches: golden vectors of the released model, a loop, the cache, other towers."""

import numpy as np
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import QuickGELU, VisionTransformer

from dnm_sklearn.detectors import GLMCMDetector
from dnm_sklearn.embedding import CLIPEmbedder
from dnm_sklearn.embedding.open_clip.local import local_rows, patch_grid
from dnm_sklearn.scoring.glmcm import global_local_mcm, patch_mcm


def golden_case(shared_dir, case):
    with np.load(shared_dir / "golden" / "golden_glmcm_dev.npz") as file:
        start = f"case{case}_"
        return {key.removeprefix(start): file[key] for key in file.files if key.startswith(start)}


def golden_tower(golden):
    """The tiny tower of a golden case, under open_clip."""
    if "geometry" in golden:
        size, patch, width, layers, heads, output = golden["geometry"].tolist()
        tower = VisionTransformer(
            size, patch, width, layers, heads, 4.0, output_dim=output, act_layer=QuickGELU
        )
    else:
        size, width, heads, output, *layers = golden["geometry_rn"].tolist()
        tower = ModifiedResNet(layers, output, heads, size, width)
    weights = {}
    for name, value in golden.items():
        if name.startswith("w_"):
            weights[name[2:].removeprefix("visual.")] = torch.from_numpy(np.array(value))
    tower.load_state_dict(weights)
    return tower.eval()


@pytest.mark.parametrize("case", range(3))
def test_golden_vectors(shared_dir, case):
    golden = golden_case(shared_dir, case)
    tower = golden_tower(golden)
    with torch.inference_mode():
        rows = local_rows(tower, torch.from_numpy(golden["pixels"]))
    rows = torch.nn.functional.normalize(rows, dim=-1).numpy()
    height, width = patch_grid(tower)
    assert golden["local"].shape[1:3] == (height, width)
    assert np.abs(rows[:, 0] - golden["global"]).max() <= 1e-5
    local = rows[:, 1:].reshape(golden["local"].shape)
    assert np.abs(local - golden["local"]).max() <= 1e-5

    for weight in (1.0, 0.5):
        got = global_local_mcm(rows, golden["id_text"], local_weight=weight)
        want = golden.get(f"score_id_confidence_weight_{weight}")
        assert want is None or np.abs(got - want).max() <= 1e-5
    for name in ("1.0", "0.01"):
        if f"mcm_T{name}" in golden:
            values = patch_mcm(rows, golden["id_text"], temperature=float(name))
            assert np.abs(values[:, 0] - golden[f"mcm_T{name}"]).max() <= 1e-5
            assert np.abs(values[:, 1:].max(axis=1) - golden[f"local_mcm_T{name}"]).max() <= 1e-5


def tiny_vit(**params):
    torch.manual_seed(0)
    return VisionTransformer(32, 8, 16, 2, 2, 4.0, output_dim=12, **params).eval()


@pytest.mark.parametrize("params", [{}, {"ls_init_value": 0.3}])
def test_patches_by_a_loop(params):
    """The last block by hand, its attention the identity, one token at a time."""
    tower = tiny_vit(**params)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        got = local_rows(tower, pixels)
        tokens = tower.transformer.resblocks[0](tower._embeds(pixels))
        block = tower.transformer.resblocks[1]
        for image in range(2):
            for place in range(1, 17):
                y = tokens[image, place]
                qkv = block.attn.in_proj_weight @ block.ln_1(y) + block.attn.in_proj_bias
                value = y + block.ls_1(block.attn.out_proj(qkv[32:]))
                value = value + block.ls_2(block.mlp(block.ln_2(value)))
                want = tower.ln_post(value) @ tower.proj
                torch.testing.assert_close(got[image, place], want, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(got[:, 0], tower(pixels))


def test_towers_of_another_shape_are_refused():
    with pytest.raises(NotImplementedError, match="ViT-B-32"):
        patch_grid(tiny_vit(pool_type="avg"))
    with pytest.raises(NotImplementedError, match="not for Identity"):
        local_rows(torch.nn.Identity(), torch.zeros(1, 3, 8, 8))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 255, (5, 40, 40, 3)).astype(np.uint8))


def test_encode_local_on_a_shipped_model(images, tmp_path):
    embedder = CLIPEmbedder("pictoclip", device="cpu")
    rows = embedder.encode_local(images)
    height, width = embedder.patch_grid_
    assert rows.shape == (5, 1 + height * width, embedder.embedding_dim_)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(rows[:, 0], embedder.encode_image(images), atol=1e-5)
    with pytest.raises(ValueError, match="takes images"):
        embedder.encode_local(rows[:, 0])
    with pytest.raises(ValueError, match="set memory="):
        embedder.encode_local(images, cache=True)

    kept = CLIPEmbedder("pictoclip", device="cpu", memory=str(tmp_path))
    kept.encode_local(images)
    assert kept.cache_info()["rows"] == 0
    np.testing.assert_allclose(kept.encode_local(images, cache=True), rows, atol=1e-6)
    np.testing.assert_allclose(kept.encode_local(images, cache=True), rows, atol=1e-6)
    assert kept.cache_info()["rows"] == 0
    np.testing.assert_allclose(kept.encode_image(images), rows[:, 0], atol=1e-5)
    assert kept.cache_info()["rows"] == 5


def test_the_detector_takes_images_or_their_patches(images, tmp_path):
    embedder = CLIPEmbedder("pictoclip", device="cpu", on_error="nan")
    det = GLMCMDetector(["dog", "pizza"], embedder=embedder).fit()
    rows = embedder.encode_local(images)
    np.testing.assert_allclose(det.score_samples(images), det.score_samples(rows), atol=1e-7)
    height, width = embedder.patch_grid_
    shares = det.explain_map(images)
    assert shares.shape == (5, height, width)
    want = 1 - patch_mcm(rows, det.class_embeddings_)[:, 1:]
    np.testing.assert_allclose(shares.reshape(5, -1), want, atol=1e-7)

    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="could not be read"):
        scores = det.score_samples([images[0], str(tmp_path / "broken.png")])
    assert np.isnan(scores).tolist() == [False, True]
