"""Sizes that an engine is built for: ranges of the model's named axes, and the shapes of its inputs that follow."""

import re
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Smallest, usual and largest size of an axis: the kernels are chosen for the usual one."""

    smallest: int
    usual: int
    largest: int

    def __str__(self) -> str:
        return ":".join(map(str, self))


USUAL = {  # of the axes that fastprompt.export.onnx names itself
    "batch": Range(1, 1, 4),
    "prompts": Range(1, 8, 64),
    "points": Range(1, 3, 10),
}


def dynamic_axes(model: Any) -> dict[str, list[tuple[str, int]]]:
    """Where each unknown size stands, ``(input, axis)``. An axis without a name has that of its place, ``"x.0"``."""
    found: dict[str, list[tuple[str, int]]] = {}
    weights = {x.name for x in model.graph.initializer}
    for value in model.graph.input:
        if value.name in weights:
            continue
        for k, axis in enumerate(value.type.tensor_type.shape.dim):
            if not axis.HasField("dim_value"):
                found.setdefault(axis.dim_param or f"{value.name}.{k}", []).append((value.name, k))
    return found


def parse(text: str) -> dict[str, Range]:
    """``"prompts=1:8:64,points=3"``."""
    found = {}
    for item in filter(None, text.replace(" ", "").split(",")):
        name, _, sizes = item.partition("=")
        if not re.fullmatch(r"\d+(:\d+:\d+)?", sizes):
            raise ValueError(
                f"profile must be like 'prompts=1:8:64,points=1:3:10', smallest:usual:largest, got {item!r}"
            )
        numbers = [int(x) for x in sizes.split(":")]
        found[name] = Range(*(numbers if len(numbers) == 3 else numbers * 3))
        if not 1 <= found[name].smallest <= found[name].usual <= found[name].largest:
            raise ValueError(f"profile of {name} must be smallest <= usual <= largest and at least 1, got {sizes}")
    return found


def ranges(model: Any, profile: str) -> dict[str, Range]:
    """A range for every unknown axis of the model."""
    axes, given = dynamic_axes(model), parse(profile)
    known = ", ".join(axes) or "none, all its shapes are fixed"
    for name in given:
        if name not in axes:
            raise ValueError(f"profile names {name!r}, which is no dynamic axis of the model; it has: {known}")
    missing = [name for name in axes if name not in given and name not in USUAL]
    if missing:
        example = ",".join(f"{name}=1:1:8" for name in missing)
        raise ValueError(f"profile must say how large {', '.join(missing)} may be, for example profile={example!r}")
    return {name: given.get(name, USUAL.get(name, Range(1, 1, 1))) for name in axes}


def shapes(model: Any, found: dict[str, Range]) -> dict[str, list[list[int]]]:
    """Three shapes for every input with an unknown axis."""
    places = {place: found[name] for name, where in dynamic_axes(model).items() for place in where}
    made = {}
    for value in model.graph.input:
        fixed = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        if any((value.name, k) in places for k in range(len(fixed))):
            made[value.name] = [
                [places[value.name, k][n] if (value.name, k) in places else size for k, size in enumerate(fixed)]
                for n in range(3)
            ]
    return made
