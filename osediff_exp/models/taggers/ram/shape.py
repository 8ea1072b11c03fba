"""The sizes of a RAM, read off its weights: Swin-L or Swin-B, any number of tags."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from osediff_exp.errors import UserError

IMAGE_SIZE = 384  # pixels: both released models (14M images)
HEAD_HEADS = 4  # attention heads of the tagging head (q2l_config.json of the released code); weights do not tell


@dataclass(frozen=True, kw_only=True)
class RAMShape:
    """What a network is built of; the defaults that weights cannot tell are the released models'.

    Attributes:
        embed_dim, depths, num_heads, window: Swin's; 192, (2, 2, 18, 2), (6, 12, 24, 48) and 12 for Swin-L.
        image_size: side of the input in pixels.
        num_tags: 4585 in the released models.
        embed_width: of image and tag embeddings (512).
        head_width, head_layers, head_inner, head_heads: of the tagging head (768, 2, 3072, 4).
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window: int
    image_size: int = IMAGE_SIZE
    num_tags: int
    embed_width: int
    head_width: int
    head_layers: int
    head_inner: int
    head_heads: int = HEAD_HEADS

    @property
    def num_tokens(self) -> int:
        """Image tokens: one per place of Swin's last stage, and their mean in front: 145 at 384 px."""
        return (self.image_size // (4 * 2 ** (len(self.depths) - 1))) ** 2 + 1

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], *, image_size: int = IMAGE_SIZE, head_heads: int = HEAD_HEADS) -> RAMShape:
        """Read the sizes off tagging weights of the released layout.

        Raises:
            UserError: a tensor that shows them is missing.
        """
        try:
            depths = _depths(weights)
            tables = [weights[f"visual_encoder.layers.{k}.blocks.0.attn.relative_position_bias_table"] for k in range(len(depths))]
            return cls(
                embed_dim=weights["visual_encoder.patch_embed.proj.weight"].shape[0],
                depths=depths,
                num_heads=tuple(table.shape[1] for table in tables),
                window=(math.isqrt(tables[0].shape[0]) + 1) // 2,
                image_size=image_size,
                num_tags=weights["label_embed"].shape[0],
                embed_width=weights["image_proj.weight"].shape[0],
                head_width=weights["fc.weight"].shape[1],
                head_layers=_count(weights, r"tagging_head\.encoder\.layer\.(\d+)\."),
                head_inner=weights["tagging_head.encoder.layer.0.intermediate.dense.weight"].shape[0],
                head_heads=head_heads,
            )
        except KeyError as error:
            raise UserError(f"these are no weights of RAM: {error.args[0]} is missing; give ram_swin_large_14m.pth") from error


def _depths(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    stages = _count(weights, r"visual_encoder\.layers\.(\d+)\.")
    return tuple(_count(weights, rf"visual_encoder\.layers\.{k}\.blocks\.(\d+)\.") for k in range(max(stages, 1)))


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max((int(found.group(1)) for name in weights if (found := re.match(pattern, name))), default=-1)
