"""Image encoder: drop-ins for ``transformers.models.seggpt``."""

from typing import Any

from torch import Tensor
from transformers.models.seggpt import modeling_seggpt as host

from fastprompt.nn.parts.encoder import RelativeLayer
from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.relative import TransformersAttention


class SegGptAttention(TransformersAttention, host.SegGptAttention):
    """``SegGptAttention`` without the N x N numbers of every head: bias and weights are never in memory."""


class SegGptLayer(RelativeLayer, host.SegGptLayer):
    """``SegGptLayer`` in three operators, unless features of several prompts are averaged between them."""

    attention_name = "attention"
    norms = "layernorm_before", "layernorm_after"
    heads = "num_attention_heads"

    def forward(
        self, hidden_states: Tensor, ensemble_cond: int, feature_ensemble: bool = False, output_attentions: bool = False
    ) -> Any:
        averaged = feature_ensemble and hidden_states.shape[0] // 2 >= ensemble_cond
        if averaged or falls_back(self, self.refusal(hidden_states, output_attentions)):
            return super().forward(hidden_states, ensemble_cond, feature_ensemble, output_attentions)
        return (self.finish(hidden_states, self.attend(hidden_states)), None)
