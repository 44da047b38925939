"""Weights of a trained size for a host that is built without a checkpoint."""

import torch


@torch.no_grad()
def trained(model):
    """Normal weights, so that every parameter has its say and the logits of masks have a standard deviation near 1.

    transformers starts some parameters at zero or at 1e-10: with those, most of a model could be left out unseen.
    """
    g = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if name.endswith(("positional_embedding", "positional_encoding_gaussian_matrix")):
            continue  # frequencies of the prompt encoder: random from the start
        if p.dim() > 1:
            std = 0.5 if "token" in name.split(".")[-2:][0] else 0.3 if "rel_pos" in name else p[0].numel() ** -0.5
            p.copy_(torch.randn(p.shape, generator=g) * std * (0.3 if "neck" in name else 1.0))
        elif name.endswith("bias"):
            p.copy_(torch.randn(p.shape, generator=g) * 0.05)
        else:
            p.copy_(torch.rand(p.shape, generator=g) * 0.6 + 0.7)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # whose statistics are those of the start
            module.weight.mul_(0.5)
        if name.endswith("pred_obj_score_head"):  # the object is there: else all its logits are one constant
            last = next(m for m in module.modules() if getattr(m, "out_features", None) == 1)
            last.weight.mul_(0.1)
            last.bias.fill_(5)
    return model.eval().requires_grad_(False)


def draw(*shape, seed=1, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale
