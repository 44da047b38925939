"""Right arguments of the decoder's operators; importing this adds them to the cases."""

import torch
from fuzz.cases import case

from fastprompt.ops.decoder import operators as decoder

C, HEADS, WIDTH, MLP, DEPTH, MIDDLE, FINE = 32, 2, 16, 48, 2, 8, 4
EPS = [1e-5, 1e-6]
SIZES = [HEADS, WIDTH, DEPTH, 4 * MIDDLE, 0]
HEAD = [(C, MIDDLE, 2, 2), (MIDDLE,), (MIDDLE,), (MIDDLE,), (MIDDLE, FINE, 2, 2), (FINE,)]


def weights(d):
    texts = decoder.layers(HEADS, WIDTH, DEPTH, MLP).partition(":")[2].replace("channels", str(C)).split("/")
    return [d.t(*map(int, text.split()), scale=0.2) for text in texts]


def picture(d):
    images, h, w = d.randint(1, 2), d.randint(1, 3), d.choice((2, 5, 9))
    prompts, tokens = images * d.randint(1, 2), d.randint(3, 5)
    return d.t(images, C, h, w), d.t(1, C, h, w), d.t(prompts, tokens, C)


def detail(d, image):
    if d.random() < 0.5:
        return None, None
    n, _, h, w = image.shape
    return d.t(n, MIDDLE, 2 * h, 2 * w), d.t(n, FINE, 4 * h, 4 * w)


@case
def mask_head(d):
    image, _, prompt = picture(d)
    given = d.t(len(prompt), C, *image.shape[2:]), d.t(len(prompt), 2, FINE), *(d.t(*s, scale=0.3) for s in HEAD)
    return *given, *detail(d, image), 1e-6


@case
def token_mlps(d):
    _, _, prompt = picture(d)
    return prompt, [0, 2], [d.t(*s, scale=0.2) for s in [(16, C), (16,), (5, 16), (5,)] * 2], 2


@case
def two_way_prepare(d):
    image, position, _ = picture(d)
    all_weights = weights(d)
    return image, position, [*all_weights[12:16], *all_weights[26:28]]


@case
def two_way(d):
    image, position, prompt = picture(d)
    all_weights = weights(d)
    first = [*all_weights[12:16], *all_weights[26:28]]
    prepared = torch.ops.fastprompt.two_way_prepare(image, position, first)
    pixels = image.shape[2] * image.shape[3]
    return prompt, prepared, all_weights, len(image), pixels, HEADS, WIDTH, MLP, DEPTH, EPS


@case
def two_way_transformer(d):
    return *picture(d), weights(d), HEADS, WIDTH, DEPTH, EPS


@case
def low_rank_prepare(d):
    image, position, _ = picture(d)
    return image, position, weights(d), d.t(C, MIDDLE, 2, 2, scale=0.3), SIZES, EPS


@case
def low_rank(d):
    image, position, prompt = picture(d)
    given = weights(d), d.t(C, MIDDLE, 2, 2, scale=0.3)
    prepared = torch.ops.fastprompt.low_rank_prepare(image, position, *given, SIZES, EPS)
    return prompt, prepared, *given, len(image), image.shape[2] * image.shape[3], MLP, SIZES, EPS


@case
def low_rank_masks(d):
    image, position, prompt = picture(d)
    up, layers = d.t(C, MIDDLE, 2, 2, scale=0.3), weights(d)
    prepared = torch.ops.fastprompt.low_rank_prepare(image, position, layers, up, SIZES, EPS)
    h, w = image.shape[2:]
    _, state = torch.ops.fastprompt.low_rank(prompt, prepared, layers, up, len(image), h * w, MLP, SIZES, EPS)
    head = [up, *(d.t(*s, scale=0.3) for s in HEAD[1:])]
    shape = [len(image), prompt.shape[1], h, w]
    return state, prepared, d.t(len(prompt), 2, FINE), head, *detail(d, image), shape, SIZES, 1e-6


@case
def mask_decoder(d):
    image, position, prompt = picture(d)
    head = [d.t(*s, scale=0.3) for s in HEAD]
    mlps = [d.t(*s, scale=0.2) for s in [(16, C), (16,), (FINE, 16), (FINE,)] * 2]
    dense = d.t(d.choice((1, len(image))), C, *image.shape[2:])
    return (
        image,
        dense,
        position,
        prompt,
        weights(d),
        head,
        *detail(d, image),
        mlps,
        HEADS,
        WIDTH,
        DEPTH,
        1,
        2,
        [*EPS, 1e-6],
    )
