"""``accelerate``: SAM of transformers at its own size, for all instruction sets and numbers of threads."""

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from hosts import PROMPTS, embedding, fast, model, no_grad, points, sam, same  # noqa: E402, F401


@pytest.mark.parametrize("prompt", PROMPTS)
def test_transformers_sam(fast, isa, prompt):
    arguments = {"image_embeddings": embedding(2 if prompt == "two images" else 1)} | PROMPTS[prompt]
    with fp.disabled():
        want = fast(**arguments)
    for _ in range(2):  # an image that is new, and one that is known
        got = fast(**arguments)
        same(got.pred_masks, want.pred_masks)
        same(got.iou_scores, want.iou_scores)


def test_sixty_four_prompts_and_threads(fast):
    arguments = {"image_embeddings": embedding(), "input_points": points(1, 64, 1)}
    with fp.disabled():
        want = fast(**arguments).pred_masks
    try:
        for threads in (1, 2, 3):
            fp.set_num_threads(threads)
            same(fast(**arguments).pred_masks, want)
            few = {**arguments, "input_points": arguments["input_points"][:, :1]}
            same(fast(**few).pred_masks, want[:, :1])
    finally:
        fp.set_num_threads(None)


def test_another_size(isa):
    model = fp.accelerate(sam(size=9))
    arguments = {"image_embeddings": embedding(size=9), "input_points": points(1, 2, 1) / 8}
    with fp.disabled():
        want = model(**arguments).pred_masks
    same(model(**arguments).pred_masks, want)
