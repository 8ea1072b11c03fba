"""Perceptual distances between images: LPIPS and its shift-tolerant sibling ST-LPIPS, frozen.

R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018 (LPIPS, version 0.1);
A. Ghildyal, F. Liu, "Shift-tolerant Perceptual Similarity Metric", ECCV 2022 (ST-LPIPS).
"""

from __future__ import annotations

import importlib.util
import socket
import warnings
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from osediff_exp.errors import UserError, nearest
from osediff_exp.models.blur import BlurDownsample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MINIMUM_SIZE = 32
_EPSILON = 1e-10
_DOWNLOAD_TIMEOUT = 20.0  # seconds without a byte


class PerceptualDistance(nn.Module):
    """d(x, y) = sum over layers l of mean over pixels of w_l . (f_l(x) - f_l(y))^2, f_l the unit-length features (LPIPS paper, eq. 1).

    Frozen and always in evaluation mode: weights get no gradient, inputs do.

    Attributes:
        recompute: keep no activations for the backward pass, compute them again there: the same figures to the bit, in less memory.
    """

    recompute: bool = False

    shift: Tensor
    scale: Tensor

    def __init__(self, *, trunk: nn.Module, heads: Sequence[Tensor], shift: Tensor, scale: Tensor) -> None:
        """Take a ``trunk`` that returns one feature map per head, ``heads`` (1, C_l, 1, 1), and the input scaling (1, 3, 1, 1)."""
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ParameterList(nn.Parameter(head.detach().clone()) for head in heads)
        self.register_buffer("shift", shift.detach().clone())
        self.register_buffer("scale", scale.detach().clone())
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PerceptualDistance:
        """Stay in evaluation mode, whatever the training loop sets."""
        return super().train(False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each pair: two (B, 3, H, W) in [-1, 1] -> (B,), 0 for equal images. UserError under 32 px."""
        if min(output.shape[-2:]) < MINIMUM_SIZE:
            raise UserError(
                f"perceptual distances need images of at least {MINIMUM_SIZE} x {MINIMUM_SIZE} px, got {tuple(output.shape[-2:])}: "
                "use larger crops or leave the lpips and st_lpips terms out"
            )
        if self.recompute and torch.is_grad_enabled():
            found: Tensor = checkpoint(self._distance, output, target, use_reentrant=False)
            return found
        return self._distance(output, target)

    def _distance(self, output: Tensor, target: Tensor) -> Tensor:
        pairs = zip(self._features(output), self._features(target), self.heads, strict=True)
        # A product and a sum, not a 1 x 1 convolution, which autocast would run in half precision.
        return torch.stack([((x - y).square() * head.flatten()).sum(dim=-1).mean(dim=(1, 2)) for x, y, head in pairs]).sum(dim=0)

    def _features(self, image: Tensor) -> list[Tensor]:
        # Channels become the last dimension: of a sum over another PyTorch lays the gradient out with channels first, whatever the maps'
        # layout, and every layer before it would convert. vector_norm, not sqrt(sum of squares): its gradient is finite where all channels
        # of a pixel are zero.
        features = [f.permute(0, 2, 3, 1) for f in self.trunk((image - self.shift) / self.scale)]
        return [f / (torch.linalg.vector_norm(f, dim=-1, keepdim=True) + _EPSILON) for f in features]


# --- ST-LPIPS -------------------------------------------------------------------------------------------------------------------------


def _conv(inputs: int, outputs: int, kernel: int, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.ReLU(inplace=True)]


def _pool(channels: int, kernel: int) -> list[nn.Module]:
    return [nn.MaxPool2d(kernel, stride=1), BlurDownsample(channels)]


def _alex_slices() -> list[list[nn.Module]]:
    # The first convolution has stride 1 and is blurred before its ReLU: that is what makes the network tolerate shifts.
    first = [nn.Conv2d(3, 64, 11, padding=2), BlurDownsample(64), nn.ReLU(inplace=True)]
    return [
        first,
        _pool(64, 3) + _conv(64, 192, 5, 2),
        _pool(192, 3) + _conv(192, 384, 3, 1),
        _conv(384, 256, 3, 1),
        _conv(256, 256, 3, 1),
    ]


def _vgg_slices() -> list[list[nn.Module]]:
    slices: list[list[nn.Module]] = []
    inputs = 3
    for outputs, num_convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers = _pool(inputs, 2) if slices else []
        for k in range(num_convs):
            layers += _conv(inputs if k == 0 else outputs, outputs, 3, 1)
        slices.append(layers)
        inputs = outputs
    return slices


_SLICES: dict[str, Callable[[], list[list[nn.Module]]]] = {"alex": _alex_slices, "vgg": _vgg_slices}


class ShiftTolerantTrunk(nn.Module):
    """The first layers of a shift-tolerant AlexNet or VGG16; returns five feature maps. Layer names are those of the released weights."""

    def __init__(self, net: str) -> None:
        super().__init__()
        number = 0
        for k, layers in enumerate(_SLICES[net](), start=1):
            self.add_module(f"slice{k}", nn.Sequential(OrderedDict((str(number + i), layer) for i, layer in enumerate(layers))))
            number += len(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for part in self.children():
            x = part(x)
            features.append(x)
        return features


def st_lpips_weights(net: str) -> Path:
    """Return the file of ST-LPIPS weights that the installed package holds; UserError where it is missing."""
    # The weights' package is located, not imported: importing it needs IPython and torchsummary.
    spec = importlib.util.find_spec("stlpips_pytorch")
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(folders or []), "")) / "weights" / "vST0.0" / f"{net}_shift_tolerant.pth"
    if not path.is_file():
        raise UserError("the ST-LPIPS weights are missing: install them with `pip install stlpips_pytorch==0.0.2`")
    return path


def st_lpips_distance(net: str = "alex") -> PerceptualDistance:
    """Return the ST-LPIPS distance with the released weights of ``net``, ``alex`` or ``vgg``; it works offline."""
    _check_net("ST-LPIPS", net)
    state = torch.load(st_lpips_weights(net), map_location="cpu", weights_only=True)
    trunk = ShiftTolerantTrunk(net)
    trunk.load_state_dict({name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")})
    heads = [state[f"lin{k}.model.1.weight"] for k in range(5)]
    return PerceptualDistance(trunk=trunk, heads=heads, shift=state["scaling_layer.shift"], scale=state["scaling_layer.scale"])


# --- LPIPS ----------------------------------------------------------------------------------------------------------------------------


def lpips_distance(net: str = "alex") -> PerceptualDistance:
    """Return the LPIPS distance (version 0.1) with trunk ``net``, ``alex`` or ``vgg``, through the package lpips.

    The trunk's ImageNet weights come from torch hub's checkpoint folder or are downloaded into it; UserError where neither is possible.
    """
    _check_net("LPIPS", net)
    try:
        import lpips
    except ImportError as error:
        raise UserError("LPIPS needs the package lpips: install it with `pip install lpips`") from error
    with _explain_missing_trunk(net), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision in a deprecated way
        network = lpips.LPIPS(net=net, version="0.1", verbose=False)
    layer = network.scaling_layer
    return PerceptualDistance(trunk=network.net, heads=[lin.model[-1].weight for lin in network.lins], shift=layer.shift, scale=layer.scale)


@contextmanager
def _explain_missing_trunk(net: str) -> Iterator[None]:
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)  # torch hub sets none: without a network it could wait for minutes
    try:
        yield
    except Exception as error:
        path = trunk_path(net)
        state = "cannot be read" if path.is_file() else "could not be downloaded"
        raise UserError(
            f"the LPIPS trunk {state} ({type(error).__name__}): put torchvision's {path.name} into {path.parent}, "
            "or use ST-LPIPS in its place, which works offline (loss/terms=[mse,st_lpips,vsd], metrics=offline)"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def trunk_path(net: str) -> Path:
    """Return where torch keeps LPIPS's trunk once it is downloaded; the file need not exist."""
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    weights = {"alex": AlexNet_Weights.IMAGENET1K_V1, "vgg": VGG16_Weights.IMAGENET1K_V1}[net]
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def _check_net(metric: str, net: str) -> None:
    if net not in _SLICES:
        raise UserError(f"{metric} has no network '{net}': choose one of {', '.join(_SLICES)}.{nearest(net, _SLICES)}")
