"""Small open_clip architectures with random weights, one of each kind of text tower."""

import json
import sys
from contextlib import contextmanager

EOT = 49407
VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
DECODER = {**TEXT, "mlp_ratio": 4, "attn_pooler_heads": 2, "dim_head": 16}

# name -> (configuration, whether its context may be cut)
KINDS = {
    "tiny-clip": ({"text_cfg": TEXT}, True),
    "tiny-quick": ({"text_cfg": TEXT, "quick_gelu": True}, True),
    "tiny-eos": (
        {"text_cfg": {**TEXT, "pool_type": "eos", "eos_id": EOT}, "custom_text": True},
        True,
    ),
    "tiny-proj-bias": ({"text_cfg": {**TEXT, "proj_bias": True}, "custom_text": True}, True),
    "tiny-last": ({"text_cfg": {**TEXT, "pool_type": "last"}, "custom_text": True}, False),
    "tiny-noncausal": ({"text_cfg": {**TEXT, "no_causal_mask": True}, "custom_text": True}, False),
    "tiny-sigmoid": (
        {
            "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
            "custom_text": True,
            "init_logit_bias": -10,
        },
        False,
    ),
    "tiny-cls": ({"text_cfg": {**TEXT, "embed_cls": True}, "custom_text": True}, False),
    "tiny-coca": (
        {
            "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
            "vision_cfg": {
                **VISION,
                "attentional_pool": True,
                "attn_pooler_heads": 2,
                "output_tokens": True,
            },
            "multimodal_cfg": DECODER,
            "custom_text": True,
        },
        False,
    ),
}


@contextmanager
def registered(folder, kinds=KINDS):
    """Register the configurations with open_clip, under ``folder``, and take them away again."""
    from open_clip import factory

    for name, (config, _) in kinds.items():
        full = {"embed_dim": 24, "vision_cfg": VISION, **config}
        (folder / f"{name}.json").write_text(json.dumps(full))
    factory.add_model_config(folder)
    try:
        yield
    finally:
        factory._MODEL_CONFIG_PATHS.remove(folder)
        for name in kinds:
            factory._MODEL_CONFIGS.pop(name, None)
        sys.modules["dnm_sklearn.embedding.open_clip.registry"].release_models()
