"""What holds for every public function of arrays: how the numbers lie in memory changes no bit, what is no array of
numbers is refused by its name, and nothing is empty without an answer."""

import inspect
import typing

import numpy as np
import pytest
from every_call import CALLS

import fastprompt as fp
from fastprompt import _selftest, metrics

ARGUMENTS = [(name, argument) for name, call in CALLS.items() for argument in call.arrays if call.axes[argument]]
IDS = [f"{name}-{argument}" for name, argument in ARGUMENTS]


def same(got, wanted):
    assert len(got) == len(wanted)
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(x, y)
        assert np.asarray(x).dtype == np.asarray(y).dtype  # ">f4" is not "<f4"


def test_all_functions_are_here():
    known = {call.function.__name__ for call in CALLS.values()}
    assert set(_selftest.operators()) - known == {"rle_to_mask"}  # which takes no array
    functions = {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
    assert functions - known == {"harmonic_iou"}


# ---------------------------------------------------------------- memory


def swapped(x):
    return x.astype(x.dtype.newbyteorder(">"))


def odd_address(x):
    room = np.zeros(x.nbytes + 1, np.uint8)
    y = np.ndarray(x.shape, x.dtype, room.data, 1)
    y[...] = x
    return y


def field(x):
    records = np.zeros(x.shape, [("a", "u1"), ("x", x.dtype), ("b", "u1")])
    records["x"] = x
    return records["x"]


def every_second(x):
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "swapped": swapped,
    "odd address": odd_address,
    "field": field,
    "field, swapped": lambda x: field(swapped(x)),
    "every second": every_second,
    "Fortran": np.asfortranarray,
    "reversed": lambda x: np.ascontiguousarray(np.flip(x))[(slice(None, None, -1),) * x.ndim],
    "read only": read_only,
    "subclass": lambda x: x.view(type("Own", (np.ndarray,), {})),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_memory_changes_nothing(name, layout):
    call = CALLS[name]
    wanted = call()
    changed = call.changed(LAYOUTS[layout])
    for argument, x in changed.items():
        same(call(**{argument: x}), wanted)
    same(call(**changed), wanted)


def test_nothing_is_written_into_a_copy():
    tokens = np.arange(24.0).reshape(1, 6, 4)
    kept, restore = fp.prune_tokens(tokens, np.arange(6.0)[None], count=2)
    with pytest.raises(ValueError, match="base must be aligned and in the order of bytes of the machine"):
        restore(-kept, swapped(tokens), inplace=True)
    kept, restore = fp.prune_tokens(swapped(tokens), np.arange(6.0)[None], count=2)
    with pytest.raises(ValueError, match="base must be aligned and in the order of bytes of the machine"):
        restore(-kept, inplace=True)
    own = tokens.copy()
    kept, restore = fp.prune_tokens(own, np.arange(6.0)[None], count=2)
    assert restore(-kept, inplace=True) is own
    assert own[0, 5, 3] == -23


@pytest.mark.parametrize("name", ["prompt_to_image_attention", "image_to_prompt_attention"])
def test_integers_give_floats(name):
    """Of a result in the dtype of integers, nothing but their whole part would be left."""
    call = CALLS[name]
    whole = {a: np.rint(call.arrays[a]) for a in ("prompt", "image")}
    same(call(**{a: x.astype(np.int64) for a, x in whole.items()}), call(**whole))


def test_floats_of_any_order_are_no_masks():
    soft = np.linspace(0, 1, 20).reshape(4, 5)
    for kind in (">f2", ">f4", ">f8", "<f4"):
        with pytest.raises(ValueError, match="say threshold"):
            metrics.iou(soft.astype(kind), soft > 0.5)
        seeds = np.where(soft > 0.9, soft, np.nan).astype(kind)
        np.testing.assert_array_equal(
            fp.euclidean_distance_transform(seeds), fp.euclidean_distance_transform(soft > 0.9)
        )


NEGATED = {
    "the bit": lambda torch, x: torch._neg_view(-x),
    "conjugate": lambda torch, x: torch.complex(x.float(), -x.float()).conj().imag.to(x.dtype),
}


@pytest.mark.parametrize("way", NEGATED)
@pytest.mark.parametrize("name", [n for n in CALLS if "geodistk" not in n])
def test_a_tensor_whose_negation_waits(name, way):
    torch = pytest.importorskip("torch")
    call = CALLS[name]
    plain = call.changed(lambda x: torch.from_numpy(np.array(x)))
    wanted = call(**plain)
    floats = {a: x for a, x in plain.items() if x.is_floating_point()}
    same(call(**plain | {a: NEGATED[way](torch, x) for a, x in floats.items()}), wanted)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS, ids=IDS)
def test_masked_arrays_are_refused(name, argument):
    call = CALLS[name]
    x = call.arrays[argument]
    with pytest.raises(TypeError, match=r"must not be a masked array, .*barriers="):
        call(**{argument: np.ma.array(x, mask=np.zeros(x.shape, bool))})


def test_masked_array_in_a_list():
    with pytest.raises(TypeError, match="image must not be a masked array"):
        fp.geodesic_distance([np.ma.array(np.zeros(4))] * 3, np.eye(3, 4))


def words(function):
    """Options that take one of a few words."""
    for option, hint in typing.get_type_hints(function).items():
        kinds = [hint, *typing.get_args(hint)]
        found = [k for k in kinds if typing.get_origin(k) is typing.Literal]
        if found and option != "return":
            yield option, typing.get_args(found[0])[0]


CHOICES = {
    f"{name}-{option}": (call, option, word) for name, call in CALLS.items() for option, word in words(call.function)
}


def test_there_are_choices():
    assert len({key.partition("-")[2] for key in CHOICES}) > 12


@pytest.mark.parametrize("key", CHOICES)
def test_a_list_is_no_choice(key):
    call, option, word = CHOICES[key]
    for wrong in ([word], np.array([word]), np.array([word] * 2), (word,), {"a": word}, 1.5):
        with pytest.raises(ValueError, match=rf"{option} must be one of .*got"):
            call(**{option: wrong})


def test_other_choices():
    wrong = np.array(["cpu", "cuda"])
    with pytest.raises(ValueError, match="backend must be one of"), fp.backend(wrong):
        pass
    with pytest.raises(ValueError, match="score must be one of norm, cls, prompt or a function"):
        fp.Prune(keep=0.5, at=1, score=wrong)
    with pytest.raises(ValueError, match="preset must be one of"):
        metrics.ReferringMetrics.preset(wrong)
    with pytest.raises(ValueError, match="denominator must be one of all, targeted"):
        metrics.ReferringMetrics(denominator=wrong)


# ---------------------------------------------------------------- labels


LABELLED = [name for name, call in CALLS.items() if "labels" in call.arrays]


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4", "i1", ">i2", "i8"])
def test_labels_are_integers_of_any_type(name, kind):
    call = CALLS[name]
    same(call(labels=call.arrays["labels"].astype(kind)), call())


@pytest.mark.parametrize("wrong", [0.5, np.nan, np.inf, 1e300])
@pytest.mark.parametrize("name", LABELLED)
def test_labels_between_integers(name, wrong):
    call = CALLS[name]
    labels = call.arrays["labels"].astype(np.float64)
    labels[0] = wrong
    with pytest.raises(ValueError, match=rf"labels must hold integers, got {wrong:g}".replace("+", r"\+")):
        call(labels=labels)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_of_tensors(name):
    torch = pytest.importorskip("torch")
    call = CALLS[name]
    tensors = call.changed(lambda x: torch.from_numpy(np.array(x)))
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        same(call(**tensors | {"labels": tensors["labels"].to(dtype)}), call(**tensors))
    with pytest.raises(ValueError, match=r"labels must hold integers, got 1\.5"):
        call(**tensors | {"labels": tensors["labels"] + 0.5})


def test_float_labels_in_a_graph():
    torch = pytest.importorskip("torch")
    points = torch.tensor([[1.0, 2.0], [3.0, 1.0], [4.0, 4.0]])
    graph = torch.compile(lambda p, x: fp.click_map(p, x, size=(5, 6)), backend="aot_eager", fullgraph=True)
    wanted = fp.click_map(points, torch.tensor([1, 0, -1]), size=(5, 6))
    same([graph(points, torch.tensor([1.0, 0.0, 0.5]))], [wanted])  # 0.5 is the label of no channel


# ---------------------------------------------------------------- nothing


EMPTY = [
    (name, letter)
    for name, call in CALLS.items()
    for letter in dict.fromkeys("".join(call.axes.values()))
    if letter != "."
]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize(("name", "letter"), EMPTY, ids=[f"{n}-{x}" for n, x in EMPTY])
def test_nothing_along_an_axis(name, letter, kind):
    call = CALLS[name]
    if kind == "torch":
        torch = pytest.importorskip("torch")
        if "geodistk" in name:
            pytest.skip("takes arrays")
    empty = {}
    for argument, axes in call.axes.items():
        if axes:
            cut = call.arrays[argument][tuple(slice(0) if a == letter else slice(None) for a in axes)]
            empty[argument] = torch.from_numpy(np.array(cut)) if kind == "torch" else cut
    named = {argument.partition(".")[0] for argument in call.arrays} | set(call.options)
    named.add("features")  # as the hosts' fts are called here
    try:
        call(**empty)
    except (ValueError, TypeError) as error:
        assert any(argument in str(error) for argument in named), error  # noqa: PT017
