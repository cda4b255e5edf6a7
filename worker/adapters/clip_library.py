"""
open_clip as an image tower needs it: the one adapter that imports it, and every name of it that adapters use.

It is imported without torch's compiler and without timm, which come when something calls them: see
``clip_deferred.py``. A version of torchvision or open_clip that wants more of them at once is given all of it.
"""

from worker.adapters.clip_deferred import deferred

try:
    with deferred():
        import open_clip
except (ImportError, AttributeError, RuntimeError, ValueError):  # the last two: transformers in between
    import open_clip

from open_clip import get_model_config, list_models
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.convert import convert_state_dict
from open_clip.factory import _find_checkpoint_in_dir as find_checkpoint_in_dir
from open_clip.model import CLIPVisionCfg, convert_weights_to_lp, resize_pos_embed
from open_clip.model import _build_vision_tower as build_vision_tower
from open_clip.pretrained import get_pretrained_cfg, list_pretrained, list_pretrained_tags_by_model
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import AttentionalPooler, QuickGELU, ResidualAttentionBlock, VisionTransformer

__all__ = [
    "HF_CONFIG_NAME",
    "HF_SAFE_WEIGHTS_NAME",
    "HF_WEIGHTS_NAME",
    "AttentionalPooler",
    "CLIPVisionCfg",
    "PreprocessCfg",
    "QuickGELU",
    "ResidualAttentionBlock",
    "VisionTransformer",
    "build_vision_tower",
    "convert_state_dict",
    "convert_weights_to_lp",
    "find_checkpoint_in_dir",
    "get_model_config",
    "get_pretrained_cfg",
    "list_models",
    "list_pretrained",
    "list_pretrained_tags_by_model",
    "merge_preprocess_dict",
    "open_clip",
    "resize_pos_embed",
]
