"""Image encoder: drop-ins for ``transformers.models.vitdet``."""

from typing import Any

from torch import Tensor
from transformers.models.vitdet import modeling_vitdet as host

from fastprompt.nn.parts.encoder import Parts, RelativeLayer
from fastprompt.nn.parts.host_path import falls_back
from fastprompt.nn.parts.relative import RelativeAttention


class VitDetAttention(RelativeAttention, host.VitDetAttention):
    """``VitDetAttention`` without the N x N numbers of every head: bias and weights are never in memory."""

    num_heads: int

    def forward(self, hidden_state: Tensor, output_attentions: bool = False) -> Any:
        if self.falls_back(hidden_state, output_attentions):
            return super().forward(hidden_state, output_attentions)
        return (self.attend(hidden_state, self.num_heads),)


class VitDetLayer(RelativeLayer, host.VitDetLayer):
    """``VitDetLayer`` in three operators, its windows where they are; a residual block behind them is the host's."""

    attention_name = "attention"
    further = "drop_path", "residual"
    mlp_parts = "fc1", "fc2", "act", "drop"
    residual: Any

    @classmethod
    def parts(cls, layer: Any) -> Parts:
        attention, mlp = layer.attention, layer.mlp
        return Parts(layer.norm1, attention.qkv, attention.proj, layer.norm2, mlp.fc1, mlp.fc2)

    def forward(self, hidden_states: Tensor, output_attentions: bool = False) -> Any:
        if falls_back(self, self.refusal(hidden_states, output_attentions)):
            return super().forward(hidden_states, output_attentions)
        x = hidden_states.permute(0, 2, 3, 1)
        x = self.finish(x, self.attend(x)).permute(0, 3, 1, 2)
        return (self.residual(x) if self.use_residual_block else x,)
