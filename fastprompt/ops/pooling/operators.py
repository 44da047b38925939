"""The operators of pooling: shapes, kernels and formulas."""

from typing import Any

from fastprompt._later import Later
from fastprompt.ops._operator import Operator
from fastprompt.ops.pooling import call
from fastprompt.ops.pooling.call import KINDS, LEVEL_EPS, RESIZES, chosen

formulas, reference = Later("fastprompt.ops.pooling.formulas"), Later("fastprompt.reference.pooling")

masked_pool = Operator(
    "masked_pool(Tensor features, Tensor mask, int resize, bool align_corners, bool background, float? threshold, "
    "float eps, float empty) -> Tensor",
    axes=lambda features, mask, resize, *rest: (
        "features: batch channels height width, mask float32 bytes: batch _ "
        + ("_%height _%width" if chosen("resize", RESIZES, resize) == "average" else "_ _")
    ),
    out=lambda features, mask, resize, align_corners, background, *rest: (
        (features.shape[0], mask.shape[1] * (2 if background else 1), features.shape[1]),
        "float32",
    ),
    call=call.masked_pool,
    reference=lambda features, mask, resize, *rest: reference.masked_pool(
        features, mask, chosen("resize", RESIZES, resize), *rest
    ),
    formula=formulas.masked_pool,
    gpu=formulas.masked_pool_gpu,
    gradient="formula",
)

similarity_map = Operator(
    "similarity_map(Tensor features, Tensor rows, float scale, float eps, float temperature, int kind, float sharpest) "
    "-> Tensor",
    axes=lambda features, rows, scale, eps, temperature, kind, sharpest: (
        chosen("kind", KINDS[:2], kind) and "features: batch channels _, rows: 1|batch _ channels"
    ),
    out=lambda features, rows, *rest: ((features.shape[0], rows.shape[1], features.shape[2]), "float32"),
    call=call.similarity,
    reference=lambda *args: reference.similarity(*args[:5], chosen("kind", KINDS, args[5]), *args[6:]),
    formula=formulas.similarity,
    gpu=formulas.similarity_gpu,
    gradient="formula",
)


def of_any_row(features: Any, rows: Any, *rest: Any) -> str:
    if rows.ndim == 3 and rows.shape[1] == 0:
        raise ValueError(f"rows must hold a row to choose, got shape {tuple(rows.shape)}")
    return "features: batch channels _, rows: 1|batch _ channels"


similarity_argmax = Operator(
    "similarity_argmax(Tensor features, Tensor rows, float scale, float eps, float temperature, float sharpest) "
    "-> Tensor",
    axes=of_any_row,
    out=lambda features, rows, *rest: ((features.shape[0], features.shape[2]), "int64"),
    call=lambda *args: call.similarity(*args[:5], KINDS.index("argmax"), *args[5:]),  # type: ignore[call-arg]
    reference=lambda *args: reference.similarity(*args[:5], "argmax", args[5]),
    formula=formulas.most_similar,
    gpu=lambda *args: formulas.similarity_gpu(*args[:5], 2, args[5]),
)


def of_pairs(query: Any, support: Any, *rest: Any) -> Any:
    return (support.shape[0], query.shape[2]), "float32"


prior_similarity = Operator(
    "prior_similarity(Tensor query, Tensor support, Tensor mask, float eps) -> Tensor",
    axes="query: images channels _, support: pairs%images channels pixels, mask: pairs pixels",
    out=of_pairs,
    call=call.prior_mask,
    reference=lambda *args: reference.levelled(reference.most_similar(*args), LEVEL_EPS),
    formula=formulas.prior,
    gpu=formulas.prior_gpu,
)

film = Operator(
    "film(Tensor x, Tensor gamma, Tensor beta, bool last) -> Tensor",
    axes=lambda x, gamma, beta, last: (
        f"gamma: batch channels, beta: batch channels, x: 1|batch {'_ channels' if last else 'channels _'}"
    ),
    out=lambda x, gamma, beta, last: ((gamma.shape[0], x.shape[1], x.shape[2]), "float32"),
    call=call.film,
    reference=reference.film,
    formula=formulas.film,
    gpu=formulas.film_gpu,
    gradient="formula",
)
