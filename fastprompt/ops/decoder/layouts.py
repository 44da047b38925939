"""How an image is prepared for many prompts, and where a layer has its weights: what Python must know of
``csrc/decoder``, as numbers."""

from typing import NamedTuple

from fastprompt import _C

# Where weights of the first layer stand in ``TwoWayWeights.all``: see of_layer.
TO_IMAGE_KEY_VALUE, MLP, TO_PROMPT_QUERY = slice(12, 16), 20, slice(26, 28)


def whole_tiles(pixels: int) -> int:
    """Image tokens in whole tiles of any instruction set."""
    tile: int = _C.decoder_tile
    return (pixels + tile - 1) // tile * tile


class Sizes(NamedTuple):
    """Of the transformer and the convolution behind it: heads, width of a head, layers, 4 x channels of the result.

    ``half``: what is prepared is kept in bfloat16.
    """

    heads: int
    width: int
    depth: int
    up: int
    half: int

    def checked(self) -> "Sizes":
        """Before anything is counted by them: a graph may hold any numbers."""
        if not all(0 < n <= most for n, most in zip(self[:4], (4096, 4096, 1024, 1 << 24), strict=True)):
            raise ValueError(f"sizes must be positive and at most 4096, 4096, 1024 and 2**24, got {list(self[:4])}")
        if self.up % 16:
            raise ValueError(f"sizes must have a multiple of 16 at place 3, got {self.up}")
        return self

    def prepared_rows(self) -> int:
        inner, rows = self.heads * self.width, self.up
        for n in range(self.depth + 1):
            rows += 2 * inner if n == 0 else (n + min(n, 2) + 3) * inner + n
        return rows

    def rank(self, tokens: int, layers: int) -> int:
        return self.depth - 1 + layers * self.heads * tokens

    def prompt_rows(self, tokens: int) -> int:
        return 1 + (self.rank(tokens, self.depth) + 15) // 16 * 16

    def state(self, tokens: int, pixels: int) -> int:
        """Numbers that are kept of a prompt."""
        return self.prompt_rows(tokens) * (self.up + whole_tiles(pixels))
