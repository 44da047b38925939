"""SAM's mask decoder as one node, in onnx's text form: transformer, MLPs of the masks' tokens and mask head."""

import re
from typing import Any

from fastprompt.export._attention import two_way, weight_names
from fastprompt.export._masks import head

HEAD = ["conv1", "bias1", "norm_weight", "norm_bias", "conv2", "bias2", "detail1", "detail2"]

# A dense prompt of all prompts, of each image or of each prompt; one vector or one for each pixel.
ADD_DENSE = """
  dense_images = Shape <start = 0, end = 1> (dense)
  dense_each = Div (prompts, dense_images)
  dense_flat = Reshape (dense, flat)
  dense_rest = Shape <start = 1> (dense_flat)
  dense_apart = Unsqueeze (dense_flat, one)
  dense_many = Concat <axis = 0> (dense_images, dense_each, dense_rest)
  dense_repeated = Expand (dense_apart, dense_many)
  dense_shape = Concat <axis = 0> (prompts, dense_rest)
  dense_own = Reshape <allowzero = 1> (dense_repeated, dense_shape)
  x_added = Add (x, dense_own)
"""


def decoder(attributes: dict[str, Any]) -> str:
    lines = two_way(attributes, ADD_DENSE)
    for m in range(attributes["masks"]):
        lines += f"""
  row{m} = Constant <value_int = {attributes["first"] + m}> ()
  mlp{m}_x0 = Gather <axis = 1> (tokens, row{m})
"""
        for n in range(attributes["layers"]):
            x = f"mlp{m}_x{n}"
            if n:
                lines += f"  {x}_bent = Relu ({x})\n"
                x += "_bent"
            lines += f"  mlp{m}_x{n + 1} = Gemm <transB = 1> ({x}, {', '.join(mlp_layer(m, n))})\n"
        lines += f"  vector{m} = Unsqueeze (mlp{m}_x{attributes['layers']}, one)\n"
    vectors = ", ".join(f"vector{m}" for m in range(attributes["masks"]))
    lines += f"  vectors = Concat <axis = 1> ({vectors})\n"
    tail = prefixed(head({}), "head_", keep=("masks",))
    return lines + re.sub(r"\bimage\b", "attended", tail).replace("@eps", "@head_eps")


def prefixed(text: str, prefix: str, keep: tuple[str, ...]) -> str:
    """The names that ``text`` defines get a prefix: two bodies become one."""
    made = {name for names in re.findall(r"^ *([\w, ]+?) =", text, re.M) for name in names.split(", ")} - set(keep)
    return re.sub(r"[A-Za-z_]\w*", lambda m: prefix + m[0] if m[0] in made else m[0], text)


def mlp_layer(mask: int, layer: int) -> tuple[str, str]:
    return f"mask{mask}_weight{layer}", f"mask{mask}_bias{layer}"


def decoder_names(attributes: dict[str, Any]) -> list[str]:
    """Of the inputs behind the prompt."""
    pairs = [mlp_layer(m, n) for m in range(attributes["masks"]) for n in range(attributes["layers"])]
    return [*weight_names(attributes["depth"]), *HEAD, *(name for pair in pairs for name in pair)]
