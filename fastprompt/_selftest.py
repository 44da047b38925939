"""Small calls of every operator, to be compared with the reference on the machine at hand: ``fastprompt doctor``."""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastprompt as fp
from fastprompt._runtime import backend
from fastprompt.ops.geodesic.grid import METHODS, METRICS

# The kernels equal the reference bit for bit where a compiler keeps the order of the additions; 1e-5 of the largest
# value leaves room for one that does not, and is far below what a wrong index or a lost lane gives.
TOLERANCE = 1e-5


WITHOUT_KERNEL = {"fourier_position_encoding", "mask_to_rle", "rle_to_mask"}  # NumPy is their only form


@dataclass(frozen=True)
class Check:
    """One call. ``error()`` runs the kernel, at the instruction set and threads in force, and gives the largest
    difference to the reference, as a fraction of the largest value; inf where one has a value and the other none."""

    operator: str
    variant: str
    error: Callable[[], float]
    tolerance: float = TOLERANCE

    @property
    def name(self) -> str:
        return f"{self.operator}  {self.variant}".strip()


def checks() -> Iterator[Check]:
    """All checks, family by family."""
    from fastprompt import _selftest_export, _selftest_guidance, _selftest_metrics, _selftest_pooling

    own = (geodesic_distance(), geodesic_others(), euclidean(), attention(), on_a_grid(), masks(), pruning())
    families = _selftest_guidance, _selftest_metrics, _selftest_pooling, _selftest_export
    others = (module.checks() for module in families)
    return itertools.chain(*own, *others)


def untested() -> list[str]:
    """Public operators with a kernel and without a check."""
    return sorted(set(operators()) - WITHOUT_KERNEL - {check.operator for check in checks()})


def operators() -> list[str]:
    """Names of the public functions of ``fastprompt.ops``."""
    modules = {name: getattr(getattr(fp, name, None), "__module__", "") for name in fp.__all__ if name.islower()}
    return sorted(name for name, module in modules.items() if module.startswith("fastprompt.ops."))


def compare(operator: str, variant: str, *arrays: Any, **options: Any) -> Check:
    def call(name: str) -> Any:
        with backend(name):
            return getattr(fp, operator)(*arrays, **options)

    wanted = functools.cache(lambda: call("reference"))  # the slow one: once, not for each instruction set
    return Check(operator, variant, lambda: difference(call("cpu"), wanted()))


def difference(got: Any, wanted: Any) -> float:
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    finite = np.isfinite(wanted)
    if got.shape != wanted.shape or not np.array_equal(got[~finite], wanted[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(float(np.abs(wanted[finite]).max()), 1e-30)
    error = float(np.abs(got[finite] - wanted[finite]).max()) / scale
    return error if error == error else float("inf")  # a NaN where the reference has a number


@functools.cache
def picture(*shape: int) -> tuple[Any, Any]:
    """Noise (C, ...), and two seed sets (2, ...) of three pixels each."""
    rng = np.random.default_rng(0)
    image = rng.random(shape, np.float32)
    seeds = np.zeros((2, *shape[1:]), bool)
    for k, _ in itertools.product(range(2), range(3)):
        seeds[(k, *(int(rng.integers(n)) for n in shape[1:]))] = True
    return image, seeds


def geodesic_distance() -> Iterator[Check]:
    # Ragged, wider than a register, and a tile and a half of the exact method; the reference of Toivanen's order walks
    # pixel by pixel in Python, so it gets small pictures.
    large, small = {2: (3, 61, 97), 3: (1, 7, 11, 35)}, {2: (3, 7, 35), 3: (1, 3, 4, 19)}
    for dims, metric, method in itertools.product((2, 3), METRICS, METHODS):
        image, seeds = picture(*(small if method == "toivanen" else large)[dims])
        variant, iterations = f"{dims}-D {metric} {method}", 1 if method == "toivanen" else 2
        options = {"metric": metric, "method": method, "iterations": iterations, "lam": 0.7, "dims": dims}
        yield compare("geodesic_distance", variant, image, seeds, **options)
    image, seeds = picture(3, 61, 97)
    walls = np.zeros((61, 97), bool)
    walls[5:50, 40] = True
    yield compare("geodesic_distance", "2-D barriers", image, seeds, barriers=walls, max_distance=8.0)


def geodesic_others() -> Iterator[Check]:
    image, seeds = picture(3, 61, 97)
    region = np.zeros((61, 97), bool)
    region[20:45, 30:70] = True
    yield compare("signed_geodesic_distance", "2-D", image, region, lam=0.7)
    yield compare("geodesic_symmetric_filter", "2-D", image, region, theta=1.5, lam=0.7)
    yield compare("exponentiated_geodesic", "2-D", image, seeds[0])


def euclidean() -> Iterator[Check]:
    for dims, shape in ((2, (1, 61, 97)), (3, (1, 7, 11, 35))):
        yield compare("euclidean_distance_transform", f"{dims}-D", picture(*shape)[1][0])


def attention() -> Iterator[Check]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    prompt, image = normal(2, 7, 64), normal(1, 64, 7, 23)
    shapes = [(32, 64), (32,)] * 3 + [(64, 32), (64,)]
    weights = fp.AttentionWeights(*(0.2 * normal(*shape) for shape in shapes))
    for form in ("absorbed", "projected"):
        options = {"heads": 2, "form": form, "image_position": normal(1, 64, 7, 23)}
        yield compare("prompt_to_image_attention", form, prompt, image, weights, **options)
        options["norm"] = (normal(64), normal(64), 1e-6)
        yield compare("image_to_prompt_attention", form, image, prompt, weights, **options)
    words, mask = normal(2, 5, 48), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    shapes = [(32, 64), (32,), *[(32, 48), (32,)] * 2, (64, 32), (64,)]
    weights = fp.AttentionWeights(*(0.2 * normal(*shape) for shape in shapes))
    yield compare("pixel_word_attention", "", normal(2, 64, 7, 23), words, weights, heads=2, mask=mask)


def on_a_grid() -> Iterator[Check]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    size, window = (13, 23), (5, 9)
    tokens, tables = [normal(1, 299, 2, 32) for _ in range(3)], (normal(25, 32), normal(45, 32))
    yield compare("relative_position_attention", "grid", *tokens, *tables, size=size)
    small, padding = (normal(9, 32), normal(17, 32)), (normal(2, 32), normal(2, 32))
    options = {"size": size, "window": window, "padding": padding}
    yield compare("relative_position_attention", "windows", *tokens, *small, **options)
    keep = np.flatnonzero(rng.random(299) < 0.5)
    places = np.stack([keep // 23, keep % 23], -1)
    kept = [x[:, keep] for x in tokens]
    yield compare("relative_position_attention", "list", *kept, *tables, size=size, coordinates=places)


def masks() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    shapes = ((32, 16, 2, 2), (16,), (16,), (16,), (16, 8, 2, 2), (8,))
    weights = fp.MaskHeadWeights(*(0.2 * rng.standard_normal(s, np.float32) for s in shapes))
    image, vectors = rng.standard_normal((2, 32, 3, 23), np.float32), rng.standard_normal((2, 3, 8), np.float32)
    yield compare("mask_head", "", image, vectors, weights)
    logits = rng.standard_normal((2, 16, 16), np.float32)
    full = {"frame": (64, 64), "crop": (48, 64), "output": "float32"}
    yield Check("resize_masks", "", lambda: difference(*(resized(logits, full, name) for name in ("cpu", "reference"))))


def pruning() -> Iterator[Check]:
    rng = np.random.default_rng(0)
    tokens, prompts = rng.standard_normal((2, 91, 35), np.float32), rng.standard_normal((1, 5, 35), np.float32)
    place = {"points": np.array([[[30.0, 50.0]]]), "grid": (7, 13), "points_weight": 0.01}
    yield compare("token_scores", "", tokens, prompts=prompts, **place)
    scores = rng.integers(0, 9, (2, 91)).astype(np.float32)  # ties

    def pruned(name: str) -> Any:
        with backend(name):
            kept, restore = fp.prune_tokens(tokens, scores, keep=0.45, stride_mix=0.2)
            return restore(-kept)

    def merged(name: str) -> Any:
        with backend(name):
            kept, _, unmerge = fp.merge_tokens(tokens, r=30, protected=1)
            return unmerge(kept)

    yield Check("prune_tokens", "", lambda: difference(pruned("cpu"), pruned("reference")))
    yield Check("merge_tokens", "", lambda: difference(merged("cpu"), merged("reference")))


def resized(logits: Any, options: dict[str, Any], name: str) -> Any:
    with backend(name):
        return fp.resize_masks(logits, (100, 133), **options).masks
