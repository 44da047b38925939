"""Fast, exact kernels for promptable image segmentation. Start with ``python -m fastprompt info``."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("fastprompt._C") is None:  # the source tree hides the installed package
    raise ImportError(
        f"{__path__[0]} is fastprompt's source, without what is compiled: start Python in another folder, or install "
        "it in place with `pip install -e .`"
    )

from fastprompt._runtime import backend, get_num_threads, release_memory, set_num_threads
from fastprompt._switches import disabled
from fastprompt.ops.attention.prompts import AttentionWeights, image_to_prompt_attention, prompt_to_image_attention
from fastprompt.ops.attention.words import pixel_word_attention
from fastprompt.ops.clicks.simulator import Click, next_click
from fastprompt.ops.decoder.head import MaskHeadWeights, mask_head
from fastprompt.ops.encoder.relative import relative_position_attention
from fastprompt.ops.geodesic.distances import (
    exponentiated_geodesic,
    geodesic_distance,
    geodesic_symmetric_filter,
    signed_geodesic_distance,
)
from fastprompt.ops.geodesic.euclidean import euclidean_distance_transform
from fastprompt.ops.guidance.boxes import box_distance_map, box_map
from fastprompt.ops.guidance.click_maps import click_map
from fastprompt.ops.guidance.composing import compose_guidance
from fastprompt.ops.guidance.regions import proposal_vote_map, superpixel_map
from fastprompt.ops.guidance.strokes import polygon_mask, scribble_map
from fastprompt.ops.guidance.vectors import fourier_position_encoding, prompt_unified_encoding
from fastprompt.ops.masks.resizing import ResizedMasks, resize_masks
from fastprompt.ops.masks.runs import mask_to_rle, rle_to_mask
from fastprompt.ops.memory.reading import memory_attention
from fastprompt.ops.pooling.conditioning import film
from fastprompt.ops.pooling.means import masked_average_pool
from fastprompt.ops.pooling.prior import prior_mask
from fastprompt.ops.pooling.similarity import cosine_prototype_map, text_similarity_map
from fastprompt.ops.pruning.merging import MergedTokens, merge_tokens
from fastprompt.ops.pruning.scoring import token_scores
from fastprompt.ops.pruning.selection import PrunedTokens, prune_tokens

__all__ = [
    "AttentionWeights", "Click", "ClickResults", "MaskHeadWeights", "MergedTokens", "Prune", "PrunedTokens",
    "ResizedMasks", "__version__", "accelerate", "backend", "bounded", "box_distance_map", "box_map", "click_map",
    "compare", "compose_guidance", "cosine_prototype_map", "disabled", "euclidean_distance_transform",
    "evaluate_clicks", "exponentiated_geodesic", "export", "film", "fourier_position_encoding", "geodesic_distance",
    "geodesic_symmetric_filter", "get_num_threads", "image_to_prompt_attention", "mask_head", "mask_to_rle",
    "masked_average_pool", "memory_attention", "merge_tokens", "metrics", "next_click", "pixel_word_attention",
    "polygon_mask", "prior_mask", "prompt", "prompt_to_image_attention", "prompt_unified_encoding", "proposal_vote_map",
    "prune_tokens", "relative_position_attention", "release_memory", "report", "resize_masks", "restore", "rle_to_mask",
    "scribble_map", "set_num_threads", "signed_geodesic_distance", "superpixel_map", "text_similarity_map",
    "token_scores",
]  # fmt: skip

if TYPE_CHECKING:
    from fastprompt import export as export
    from fastprompt import metrics as metrics
    from fastprompt._pruning import Prune, prompt
    from fastprompt.evaluation import ClickResults, evaluate_clicks
    from fastprompt.models import accelerate, compare, report, restore
    from fastprompt.video import bounded

    __version__: str
else:  # unseen by type checkers, which would take any name for known
    # Where names are that not every process needs: a third of the time of an import.
    _LATER = {
        "export": "",
        "metrics": "",
        "ClickResults": "evaluation",
        "evaluate_clicks": "evaluation",
        "bounded": "video",
    }
    _LATER |= dict.fromkeys(("accelerate", "compare", "report", "restore"), "models")
    _LATER |= dict.fromkeys(("Prune", "prompt"), "_pruning")

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version  # 10 ms that an import need not pay; pyproject.toml has the number

            return version("fastprompt")
        if name not in _LATER:
            raise AttributeError(f"module 'fastprompt' has no attribute {name!r}")
        module = importlib.import_module(f"fastprompt.{_LATER[name] or name}")
        return getattr(module, name) if _LATER[name] else module
