"""Image encoder, which is SAM's: drop-ins for ``transformers.models.pp_formulanet``."""

from transformers.models.pp_formulanet import modeling_pp_formulanet as host

from fastprompt.nn.parts.encoder import TransformersLayer
from fastprompt.nn.parts.relative import TransformersAttention


class PPFormulaNetVisionAttention(TransformersAttention, host.PPFormulaNetVisionAttention):
    """``PPFormulaNetVisionAttention`` without the N x N numbers of every head."""


class PPFormulaNetVisionLayer(TransformersLayer, host.PPFormulaNetVisionLayer):
    """``PPFormulaNetVisionLayer`` in three operators, its windows where they are."""
