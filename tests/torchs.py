"""Weights of torch.nn's modules put into ours, to compare what they compute."""

import torch
from torch import nn

from seq2attn.attention.heads import MultiHead
from seq2attn.models.decoders import DecoderLayer
from seq2attn.models.encoders import EncoderLayer


def load_attention(ours: MultiHead, theirs: nn.MultiheadAttention) -> None:
    if theirs.in_proj_weight is None:
        matrices = theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight
    else:
        matrices = theirs.in_proj_weight.chunk(3)
    biases = theirs.in_proj_bias.chunk(3)
    for part, weight, bias in zip((ours.query, ours.key, ours.value), matrices, biases, strict=True):
        part.load_state_dict({"weight": weight, "bias": bias})
    ours.out.load_state_dict(theirs.out_proj.state_dict())


def load_encoder_layer(ours: EncoderLayer, theirs: nn.TransformerEncoderLayer) -> None:
    load_attention(ours.self_attention, theirs.self_attn)
    ours.feed_forward.inner.load_state_dict(theirs.linear1.state_dict())
    ours.feed_forward.outer.load_state_dict(theirs.linear2.state_dict())
    ours.self_attention_residual.norm.load_state_dict(theirs.norm1.state_dict())
    ours.feed_forward_residual.norm.load_state_dict(theirs.norm2.state_dict())


def load_decoder_layer(ours: DecoderLayer, theirs: nn.TransformerDecoderLayer) -> None:
    load_attention(ours.self_attention, theirs.self_attn)
    load_attention(ours.cross_attention, theirs.multihead_attn)
    ours.feed_forward.inner.load_state_dict(theirs.linear1.state_dict())
    ours.feed_forward.outer.load_state_dict(theirs.linear2.state_dict())
    ours.self_attention_residual.norm.load_state_dict(theirs.norm1.state_dict())
    ours.cross_attention_residual.norm.load_state_dict(theirs.norm2.state_dict())
    ours.feed_forward_residual.norm.load_state_dict(theirs.norm3.state_dict())


def randomised(module: nn.Module) -> nn.Module:
    """In evaluation, with no bias or norm left at its 0 or 1, where a swap would not show."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=1.0)
    return module.eval().to(torch.float64)
