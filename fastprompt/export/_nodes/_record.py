"""``Record``: all that is known of one node of domain ``fastprompt``, in one object."""

from collections.abc import Callable
from typing import Any

DOMAIN = "fastprompt"
VERSION = 1
PLUGIN = {"plugin_namespace": "fastprompt", "plugin_version": "1"}  # how TensorRT finds a plugin; on every node
KINDS = {"i": "int", "f": "float", "s": "string", "I": "ints", "F": "floats"}  # the letters of csrc/export/node.h

Arguments = dict[str, Any]
RECORDS: dict[str, "Record"] = {}  # by name: each adds itself
TRANSLATIONS: dict[str, Callable[[Any, Arguments], Any]] = {}  # by torch's operator


class Record:
    """One name for the node, the function and the plugin.

    Args:
        name: of the node.
        inputs: "image:T bias:T?4 lengths:i?": names and letters of csrc/export/node.h; "weights:T+" is one or more. One
            with "?" may be left out: a tensor of one element (of 4 axes, say) that changes nothing (0 added, say) then
            stands for it, so that one body serves every call; kernels read such a tensor as "absent".
        outputs: as inputs.
        attributes: "size:I scale:f".
        body: ``body(g, *inputs)``, what the node means in standard ONNX; ``g.a`` has the attributes.
        weights: of the attributes: the names of the inputs that are "weights:T+".
        torch: the operator of torch that becomes this node, its arguments by their names.
        adapt: makes the node's inputs and attributes of torch's arguments, where they differ.
        plan: ``plan(inputs, attributes, precision)``, the kernels that TensorRT's plugin carries; NoPlan says why not.
        own_plugin: ``own_plugin(inputs, attributes)`` where the plugin has kernels of its own: NoPlan says why not.
        plugin_types: ONNX's numbers of the types that the plugin wants its inputs to be cast to, by place.
        halves: the plugin takes float16 and bfloat16, as products do.
        quick: the plan is a single launch, which can be a quick deployable plugin.
        for_tensorrt: another body, for TensorRT.
        kept: the attribute that says how many a TopK of the body keeps, which TensorRT limits.
    """

    def __init__(
        self,
        name: str,
        inputs: str,
        outputs: str,
        attributes: str = "",
        *,
        body: Callable[..., Any],
        weights: Callable[[Arguments], list[str]] | None = None,
        torch: str | None = None,
        adapt: Callable[[Arguments], Arguments] = lambda arguments: arguments,
        plan: Callable[..., Any] | None = None,
        halves: bool = False,
        quick: bool = False,
        own_plugin: Callable[..., None] | None = None,
        plugin_types: tuple[int, ...] = (),
        for_tensorrt: Callable[..., Any] | None = None,
        kept: str = "",
    ) -> None:
        self.name, self.body, self.weights, self.adapt = name, body, weights, adapt
        self.plan, self.halves, self.quick = plan, halves, quick
        self.own_plugin, self.plugin_types = own_plugin, plugin_types
        self.for_tensorrt, self.kept = for_tensorrt, kept
        self.inputs, self.outputs = pairs(inputs), pairs(outputs)
        self.attributes = {key: KINDS[letter] for key, letter in pairs(attributes).items()}
        RECORDS[name] = self
        if torch is not None:
            TRANSLATIONS[torch] = lambda g, arguments: g.ours(self, **adapt(arguments))

    def input_names(self, attributes: Arguments) -> list[str]:
        """Of a node, its weights one by one."""
        return [*list(self.inputs)[:-1], *self.weights(attributes)] if self.weights else list(self.inputs)


def pairs(text: str) -> dict[str, str]:
    return {name: letter for name, _, letter in (item.partition(":") for item in text.split())}


def translates(name: str) -> Callable[[Any], Any]:
    """``@translates("film")`` over ``f(g, arguments)``: torch's operator as more, or other, than one node of ours."""

    def keep(function: Any) -> Any:
        TRANSLATIONS[name] = function
        return function

    return keep


def without_node(why: str, *names: str) -> None:
    for name in names:

        def refuse(g: Any, arguments: Arguments, name: str = name) -> Any:
            raise ValueError(f"{name} has no node: {why}")

        TRANSLATIONS[name] = refuse


OF_HOST = "it is made of lists of a host, before the model: call it there, and give its result to the model"
