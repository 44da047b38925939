"""Every decoder that has a drop-in against its host, for every kind of prompt."""

import copy

import pytest

import fastprompt as fp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from decoders import BUILDERS, KINDS, draw, host  # noqa: E402
from hosts import no_grad, same  # noqa: E402, F401


def check(decoder, arguments):
    want = fp.restore(decoder)(**arguments)
    fp.accelerate(decoder)
    for _ in range(2):  # an image that is new, and one that is known
        got = decoder(**arguments)
        assert len(got) == len(want)
        for x, y in zip(got, want, strict=True):
            same(x, y)


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BUILDERS)
def test_one_prompt(name, kind, multimask):
    check(host(name).decoder, host(name).arguments(kind, 1, multimask))


@pytest.mark.parametrize("kind", ["point", "10 points", "mask"])
@pytest.mark.parametrize("count", [16, 64])
@pytest.mark.parametrize("name", BUILDERS)
def test_many_prompts(name, count, kind):
    check(host(name).decoder, host(name).arguments(kind, count))
