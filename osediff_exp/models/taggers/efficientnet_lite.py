"""EfficientNet-Lite0, the ImageNet classifier whose weights a small package carries.

M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; its Lite variant (2020) is B0
without squeeze-and-excitation and with ReLU6. Layer names are those of the released weights.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 224  # pixels: the borders below hold for this size only
NUM_CLASSES = 1000
_STEM, _HEAD = 32, 1280
# Of each stage: blocks, kernel, stride of the first block, expansion, output channels (B0's table, paper, table 1).
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's border: at stride 2 and an even side it is one pixel wider at the right and the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        self.border = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.border))


class InvertedResidual(nn.Module):
    """Expand (1 x 1), filter each channel, project (1 x 1); the input is added where the shapes agree (MobileNetV2)."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SameConv(inputs, inner, 1)
            self._bn0 = _norm(inner)
        self._depthwise_conv = SameConv(inner, inner, kernel, stride=stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv = SameConv(inner, outputs, 1)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


def _blocks() -> list[nn.Module]:
    blocks: list[nn.Module] = []
    inputs = _STEM
    for count, kernel, first_stride, expansion, outputs in _STAGES:
        for k in range(count):
            stride = first_stride if k == 0 else 1
            blocks.append(InvertedResidual(inputs, outputs, kernel=kernel, stride=stride, expansion=expansion))
            inputs = outputs
    return blocks


class EfficientNetLite0(nn.Module):
    """Pictures (B, 3, 224, 224), (8-bit value - 127) / 128, to logits (B, 1000) of ImageNet's classes; 4.65 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, _STEM, 3, stride=2)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.Sequential(*_blocks())
        self._conv_head = SameConv(_STAGES[-1][-1], _HEAD, 1)
        self._bn1 = _norm(_HEAD)
        self._fc = nn.Linear(_HEAD, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self._fc(self.features(x).mean(dim=(2, 3)))

    def features(self, x: Tensor) -> Tensor:
        """Return the last feature map, (B, 1280, 7, 7), of pictures as the network takes them."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        return F.relu6(self._bn1(self._conv_head(self._blocks(x))))

    def trunk(self, num_stages: int) -> nn.Sequential:
        """Return the first ``num_stages`` of the seven stages, with this network's layers; pictures of any size."""
        num_blocks = sum(stage[0] for stage in _STAGES[:num_stages])
        return nn.Sequential(self._conv_stem, self._bn0, nn.ReLU6(), *list(self._blocks)[:num_blocks])
