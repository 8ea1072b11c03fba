"""RAM's tagging head: every tag asks the picture whether it is in it (query2label; S. Liu et al., arXiv 2107.10834).

Module names are those of the released weights, which are BERT's: post-norm layers without self-attention.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_EPSILON = 1e-12  # BERT's


class CrossAttention(nn.Module):
    """Multi-head attention of queries (B, N, width) to the image's tokens (B, L, context): (B, N, width)."""

    def __init__(self, width: int, context: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context, width)
        self.value = nn.Linear(context, width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = self._split(self.query(x)), self._split(self.key(tokens)), self._split(self.value(tokens))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class AddAndNorm(nn.Module):
    """LayerNorm(residual + dense(x)): the second half of each of BERT's blocks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)
        self.LayerNorm = nn.LayerNorm(outputs, eps=_EPSILON)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dense(x))


class _Attention(nn.Module):
    def __init__(self, width: int, context: int, *, num_heads: int) -> None:
        super().__init__()
        self.self = CrossAttention(width, context, num_heads=num_heads)
        self.output = AddAndNorm(width, width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.output(self.self(x, tokens), x)


class _Intermediate(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class HeadLayer(nn.Module):
    """Cross-attention, then a perceptron, each with its residual and norm."""

    def __init__(self, width: int, context: int, *, num_heads: int, inner: int) -> None:
        super().__init__()
        self.crossattention = _Attention(width, context, num_heads=num_heads)
        self.intermediate = _Intermediate(width, inner)
        self.output = AddAndNorm(inner, width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        x = self.crossattention(x, tokens)
        return self.output(self.intermediate(x), x)


class TaggingHead(nn.Module):
    """Tag embeddings (B, N, width) and image tokens (B, L, context) to what each tag has seen (B, N, width)."""

    def __init__(self, width: int, context: int, *, num_layers: int, num_heads: int, inner: int) -> None:
        super().__init__()
        layers = [HeadLayer(width, context, num_heads=num_heads, inner=inner) for _ in range(num_layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined]
            x = layer(x, tokens)
        return x
