"""A call of every public function of arrays, for tests of what must hold in all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastprompt as fp
from fastprompt import metrics
from fastprompt.compat import geodistk, panet, pfenet


class Call(NamedTuple):
    """Arrays by name, and the letters of their axes, none of a number; a name like "weights.2" is a part of a tuple."""

    function: Callable
    arrays: dict[str, Any]
    axes: dict[str, str]
    options: dict[str, Any]
    positional: bool = False

    def changed(self, change: Callable) -> dict[str, Any]:
        return {name: change(x) for name, x in self.arrays.items() if self.axes[name]}

    def __call__(self, **other: Any) -> list[Any]:
        """The results, flat."""
        given: dict[str, Any] = {}
        for name, x in (self.arrays | {k: v for k, v in other.items() if k in self.arrays}).items():
            whole, _, part = name.partition(".")
            given[whole] = x if not part else (*given.get(whole, ()), x)
        if "weights" in given:
            kind = fp.MaskHeadWeights if len(given["weights"]) == 6 else fp.AttentionWeights
            given["weights"] = kind(*given["weights"])
        options = self.options | {k: v for k, v in other.items() if k not in self.arrays}
        if self.positional:
            return list(flat(self.function(*given.values(), **options)))
        return list(flat(self.function(**given, **options)))


def flat(x: Any) -> Any:
    if isinstance(x, (tuple, list)) and not isinstance(x, fp.Click):
        for item in x:
            yield from flat(item)
    elif isinstance(x, dict):
        yield from flat(list(x.values()))
    elif x is not None and not callable(x):
        yield x


def made(**arrays: tuple[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    named = {name.replace("__", "."): given for name, given in arrays.items()}
    return {name: x for name, (_, x) in named.items()}, {name: axes for name, (axes, _) in named.items()}


def calls() -> dict[str, Call]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    image, seeds, walls = np.rint(9 * normal(2, 9, 11)), rng.random((3, 9, 11)) < 0.1, rng.random((9, 11)) < 0.1
    geodesic = made(image=("CHW", image), seeds=("KHW", seeds), barriers=("HW", walls))
    region, points, labels = (
        rng.random((9, 11)) < 0.5,
        rng.integers(0, 9, (5, 2)).astype("f4"),
        np.array([1, 0, 1, 0, -1]),
    )
    clicks = {"points": ("N.", points), "labels": ("N", labels)}
    corners, size = rng.uniform(0, 9, (3, 4)).astype("f4"), {"size": (9, 11)}
    tokens, scores = normal(2, 12, 6), normal(2, 12)
    prompts = {"points": ("BP.", normal(2, 3, 2)), "boxes": ("BQ.", np.sort(normal(2, 3, 4))[..., [0, 1, 2, 3]])}
    features, masks = np.abs(normal(2, 6, 4, 5)), rng.random((2, 3, 8, 10)) < 0.5
    pred, target, logits = rng.random((3, 9, 11)) < 0.5, rng.random((3, 9, 11)) < 0.5, normal(3, 9, 11)
    both = {"pred": ("MHW", logits), "target": ("MHW", target.astype("i2"))}
    shapes = [(16, 32), (16,)] * 3 + [(32, 16), (32,)]
    letters = ["DC", "D"] * 3 + ["CD", "C"]
    attention = {f"weights__{k}": (a, 0.2 * normal(*s)) for k, (a, s) in enumerate(zip(letters, shapes, strict=True))}
    words = dict(attention) | {"weights__2": ("DL", normal(16, 7)), "weights__4": ("DL", normal(16, 7))}
    positions = {"prompt_position": ("BTC", normal(2, 3, 32)), "image_position": (".CHW", normal(1, 32, 4, 5))}
    pair = {"prompt": ("BTC", normal(2, 3, 32)), "image": ("BCHW", normal(2, 32, 4, 5))} | positions
    pair["lengths"] = ("B", np.array([2, 3]))
    bias = {"bias": ("BTHW", normal(2, 3, 4, 5))}
    norm = {"norm__0": ("C", normal(32)), "norm__1": ("C", normal(32)), "norm__2": ("", 1e-6)}
    head = [(32, 16, 2, 2), (16,), (16,), (16,), (16, 8, 2, 2), (8,)]
    head_axes = ["CM..", "M", "M", "M", "MD..", "D"]
    head_weights = {f"weights__{k}": (a, normal(*s)) for k, (a, s) in enumerate(zip(head_axes, head, strict=True))}
    detail = {"detail__0": ("BM..", normal(1, 16, 6, 8)), "detail__1": ("BD..", normal(1, 8, 12, 16))}
    qkv = {name: ("BNHD", normal(1, 12, 2, 16)) for name in "qkv"}
    tables = {"rel_h": (".D", normal(3, 16)), "rel_w": (".D", normal(3, 16))}
    padding = {"padding__0": ("HD", normal(2, 16)), "padding__1": ("HD", normal(2, 16))}
    grid = {"q": ("BNHD", normal(1, 5, 2, 16))} | {k: ("BNHD", normal(1, 5, 2, 16)) for k in "kv"}
    places = np.array([[0, 0], [0, 2], [1, 1], [2, 0], [2, 2]])
    memory = {"q": ("BTHD", normal(2, 4, 1, 8)), "k": ("BMHD", normal(2, 9, 1, 8)), "v": ("BMHE", normal(2, 9, 1, 5))}
    turning = {"rotation__0": ("TD", normal(4, 8)), "rotation__1": ("TD", normal(4, 8))}
    strokes = {"strokes__0": ("N.", points), "strokes__1": ("M.", points[:2] + 3)}
    fourier = {"matrix": (".C", normal(2, 4)), "boxes": ("M.", corners), **clicks}
    fourier |= {"embeddings": ("..", normal(4, 8)), "not_a_point": (".", normal(8))}
    composed = {"image": ("CHW", image), "previous_mask": ("KHW", region[None].astype("f4")), "boxes": ("M.", corners)}
    composed |= clicks
    sums, tile = {"scale": 0.7}, {"size": (3, 4), "window": 2}
    found = {
        "geodesic_distance": (fp.geodesic_distance, geodesic, {"lam": 0.5}),
        "geodesic_distance soft": (
            fp.geodesic_distance,
            made(image=("CHW", image), seeds=("KHW", rng.random((3, 9, 11), np.float32))),
            {"v": 30.0, "method": "raster"},
        ),
        "signed_geodesic_distance": (fp.signed_geodesic_distance, geodesic, {"method": "raster"}),
        "geodesic_symmetric_filter": (
            fp.geodesic_symmetric_filter, made(image=("CHW", image), seeds=("HW", region)), {"theta": 2.0},
        ),
        "exponentiated_geodesic": (fp.exponentiated_geodesic, geodesic, {"normalize": "minmax"}),
        "euclidean_distance_transform": (
            fp.euclidean_distance_transform, made(seeds=("KHW", seeds.astype("f4"))), {"spacing": (2.0, 1.0)},
        ),
        "click_map": (fp.click_map, made(**clicks), {**size, "encoding": "tanh"}),
        "box_map": (fp.box_map, made(boxes=("N.", corners)), size),
        "box_distance_map": (fp.box_distance_map, made(boxes=("N.", corners)), size),
        "scribble_map": (fp.scribble_map, made(**strokes, labels=(".", np.array([1, 0]))), size),
        "polygon_mask": (fp.polygon_mask, made(vertices=("N.", points)), size),
        "superpixel_map": (
            fp.superpixel_map, made(superpixels=("HW", np.arange(99).reshape(9, 11) // 7), **clicks), {},
        ),
        "proposal_vote_map": (fp.proposal_vote_map, made(proposals=("PHW", pred.astype("i2")), **clicks), {}),
        "prompt_unified_encoding": (
            fp.prompt_unified_encoding, made(**clicks, extents=("N.", np.full((5, 2), 4.0))), size,
        ),
        "fourier_position_encoding": (fp.fourier_position_encoding, made(**fourier), size),
        "compose_guidance": (fp.compose_guidance, made(**composed), size),
        "prompt_to_image_attention": (
            fp.prompt_to_image_attention, made(**pair, **bias, **attention), {"heads": 1, **sums},
        ),
        "image_to_prompt_attention": (fp.image_to_prompt_attention, made(**pair, **norm, **attention), {"heads": 1}),
        "pixel_word_attention": (
            fp.pixel_word_attention,
            made(image=("BCHW", normal(2, 32, 4, 5)), words=("BTL", normal(2, 3, 7)), mask=("BT", np.ones((2, 3))), **words),
            {"heads": 1, "query_norm": 1e-5, "return_logits": True},
        ),
        "mask_head": (fp.mask_head, made(image=("BC..", normal(1, 32, 3, 4)), vectors=("BKD", normal(1, 3, 8)), **head_weights, **detail), {}),
        "relative_position_attention": (fp.relative_position_attention, made(**qkv, **tables, **padding), tile),
        "relative_position_attention list": (
            fp.relative_position_attention,
            made(**grid, rel_h=(".D", normal(5, 16)), rel_w=(".D", normal(5, 16)), coordinates=("N.", places)),
            {"size": (3, 3)},
        ),
        "memory_attention": (fp.memory_attention, made(**memory, **turning), {"unrotated": 1}),
        "resize_masks": (fp.resize_masks, made(logits=("MHW", logits)), {"size": (13, 17)}),
        "mask_to_rle": (fp.mask_to_rle, made(mask=("MHW", target)), {}),
        "mask_to_rle floats": (fp.mask_to_rle, made(mask=("MHW", np.rint(logits))), {}),
        "masked_average_pool": (
            fp.masked_average_pool, made(features=("BChw", features), mask=("BMHW", masks)), {"preset": "panet"},
        ),
        "masked_average_pool soft": (
            fp.masked_average_pool,
            made(features=("BChw", features), mask=("BMHW", rng.random(masks.shape))),
            {"preset": "matcher", "background": True},
        ),
        "cosine_prototype_map": (
            fp.cosine_prototype_map, made(features=("BChw", features), prototypes=("PC", normal(3, 6))), {},
        ),
        "text_similarity_map": (
            fp.text_similarity_map, made(features=("BChw", features), text=("TC", normal(3, 6))), {"reduce": "softmax"},
        ),
        "prior_mask": (
            fp.prior_mask,
            made(query=("BChw", features), support=("BChw", features[::-1]), mask=("BHW", masks[:, 0])),
            {"size": (5, 6)},
        ),
        "film": (fp.film, made(x=("BChw", features), gamma=("BC", normal(2, 6)), beta=("BC", normal(2, 6))), {}),
        "token_scores": (
            fp.token_scores,
            made(tokens=("BNC", tokens), prompts=("BRC", normal(2, 2, 6)), attention=("BN", scores), **prompts, mask=("B..", normal(2, 3, 4))),
            {"grid": (3, 4)},
        ),
        "prune_tokens": (
            fp.prune_tokens,
            made(tokens=("BNC", tokens), scores=("BN", scores), always_keep=("N", (np.arange(12) == 0).astype("f4"))),
            {"keep": 0.5},
        ),
        "merge_tokens": (
            fp.merge_tokens,
            made(tokens=("BNC", tokens), metric=("BNC", normal(2, 12, 6)), size=("BN", 1 + np.abs(scores))),
            {"r": 4},
        ),
        "next_click": (
            fp.next_click,
            made(target=("MHW", target.astype("i4")), pred=("MHW", logits), clicked=("M..", np.zeros((3, 1, 2)))),
            {"threshold": 0.1},
        ),
        "metrics.overlap": (metrics.overlap, made(**both), {"threshold": 0.2, "ignore": 3}),
        "metrics.iou": (metrics.iou, made(**both), {"threshold": 0.2}),
        "metrics.dice": (metrics.dice, made(**both), {"threshold": 0.2}),
        "metrics.hausdorff": (metrics.hausdorff, made(**both), {"threshold": 0.2, "surface": True}),
        "metrics.pairwise_iou": (
            metrics.pairwise_iou, made(pred=("MHW", logits), target=("KHW", target.astype("i2"))), {"threshold": 0.2},
        ),
        "metrics.point_matching": (metrics.point_matching, made(scores=("MHW", logits), target=("MHW", target)), {}),
        "metrics.mean_iou_per_class": (
            metrics.mean_iou_per_class,
            made(pred=("MHW", pred.astype("i4")), target=("MHW", target.astype("i2"))),
            {"classes": 3},
        ),
        "metrics.mean_iou_per_class masks": (
            metrics.mean_iou_per_class, made(**both, class_id=("M", np.array([1, 2, 1]))), {"threshold": 0.2},
        ),
        "metrics.noc": (metrics.noc, made(curves__0=("N", np.array([0.5, 0.9])), curves__1=("M", np.array([0.6]))), {"threshold": 0.8}),
        "metrics.nof": (metrics.nof, made(curves__0=("N", np.array([0.5, 0.9])), curves__1=("M", np.array([0.6]))), {"threshold": 0.8}),
        "metrics.r_iou": (metrics.r_iou, made(**both, negatives=("MKHW", normal(3, 2, 9, 11))), {"threshold": 0.2}),
        "metrics.r_res": (metrics.r_res, made(negatives=("MHW", logits), rejected=("M", np.array([1, 0, 1]))), {"threshold": 0.2}),
    }  # fmt: skip
    for name in (
        "fb_iou",
        "mean_iou_per_sample",
        "overall_iou",
        "generalized_iou_res",
        "precision_at",
        "t_acc",
        "n_acc",
    ):
        found[f"metrics.{name}"] = (getattr(metrics, name), made(**both), {"threshold": 0.2})
    made_calls = {name: Call(function, *arrays, options) for name, (function, arrays, options) in found.items()}
    return made_calls | host_calls(image, region, features, masks)


def host_calls(image: Any, region: Any, features: Any, masks: Any) -> dict[str, Call]:
    picture, mask = {"image": ("HW", image[0]), "seeds": ("HW", region)}, {"mask": ("BHW", masks[:1, 0])}
    few, shots = made(fts=("BChw", features[:1]), **mask), made(fts=("BChw", features), mask=("BKHW", masks[:, :1]))

    def scan(image: Any, seeds: Any) -> Any:
        return geodistk.geodesic2d_raster_scan(image, seeds, 0.5, 2)

    return {
        "compat.geodistk": Call(scan, *made(**picture), {}),
        "compat.panet": Call(panet.getFeatures, *few, {}, positional=True),
        "compat.pfenet": Call(pfenet.Weighted_GAP, *shots, {}, positional=True),
    }


CALLS = calls()
