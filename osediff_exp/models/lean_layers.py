"""Layers that keep less for the backward pass: the values and, but for the order of sums, the gradients of PyTorch's and diffusers' own.

A convolution keeps its input for the gradient of its weights, frozen ones too; pooling keeps a place of 64 bits for every maximum; a
GroupNorm and its SiLU keep three maps (four with channels last), of which one, the norm's output, is cheap to compute again. In a frozen
decoder that is more than half of all that is kept. What they spend a little memory on is time: frozen weights are rounded once for mixed
precision (:mod:`~osediff_exp.models.rounded_weights`).
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.models.blur import BlurDownsample
from osediff_exp.models.layouts import group_norm, is_channels_last
from osediff_exp.models.rounded_weights import rounded

WORTH = 1 << 18
"""Elements of a map from which on a convolution or a block saves memory: below, a call of an autograd function of ours costs more."""


def lean_layers(*networks: nn.Module) -> None:
    """Let ``networks``, in place, keep less: frozen convolutions, maximum pooling and ST-LPIPS's blur on any device, residual blocks
    (``ResnetBlock2D``) on a CPU; of maps that are worth it. Frozen convolutions and linear layers round their weights once.

    Parameters stay the same objects. Blocks of another kind than Stable Diffusion's compute as before.
    """
    for network in networks:
        for layer in network.modules():
            if type(layer) is nn.Conv2d:
                layer.__class__ = LeanConv2d
            elif type(layer) is nn.Linear:
                layer.__class__ = LeanLinear
            elif type(layer) is nn.MaxPool2d and not layer.return_indices:
                layer.__class__ = LeanMaxPool2d
            elif isinstance(layer, BlurDownsample):
                layer.lean = True
            elif type(layer) is ResnetBlock2D and _is_plain(layer):
                layer.__class__ = LeanResnetBlock


class LeanConv2d(nn.Conv2d):
    """A convolution that does not keep its input while its weights are frozen; made by :func:`lean_layers`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        trains = weight.requires_grad or (bias is not None and bias.requires_grad)
        weight, bias = rounded(weight), None if bias is None else rounded(bias)
        differentiated = torch.is_grad_enabled() and input.requires_grad and input.numel() >= WORTH
        if trains or not differentiated or self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super()._conv_forward(input, weight, bias)
        found: Tensor = _FrozenConv.apply(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return found


class LeanLinear(nn.Linear):
    """A linear layer that rounds its frozen weights for mixed precision once; made by :func:`lean_layers`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, rounded(self.weight), None if self.bias is None else rounded(self.bias))


class _FrozenConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.settings, ctx.size, ctx.dtype = settings, x.shape, x.dtype
        ctx.layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
        return F.conv2d(x, weight, bias, *settings)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        # Under autocast the output, and so its gradient, is in half precision: the weight is rounded to it as it was then.
        weight = weight.to(gradient.dtype)
        # Of the input the sizes are read alone; torch.nn.grad.conv2d_input gives one that a CPU's kernels copy into their layout first.
        x = torch.empty(ctx.size, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.layout)
        stride, padding, dilation, groups = ctx.settings
        only_x = (True, False, False)
        dx = torch.ops.aten.convolution_backward(gradient, x, weight, None, stride, padding, dilation, False, (0, 0), groups, only_x)[0]
        return dx.to(ctx.dtype), *(None,) * 6


class LeanMaxPool2d(nn.MaxPool2d):
    """Maximum pooling that looks for the maxima's places again in the backward pass; made by :func:`lean_layers`.

    With stride 1, as ST-LPIPS has it, a CPU computes it as the maximum of shifted maps, along one side and then along the other: PyTorch's
    own visits the pixels one by one, and takes ten times as long.
    """

    def forward(self, input: Tensor) -> Tensor:
        settings = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        size = self.kernel_size if input.device.type == "cpu" and settings[1:] == (1, 0, 1, False) else None
        if not (torch.is_grad_enabled() and input.requires_grad):
            return _sliding_max2d(input, size) if isinstance(size, int) else super().forward(input)
        found: Tensor = _SlidingMax.apply(input, size) if isinstance(size, int) else _MaxPool.apply(input, *settings)
        return found


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *settings: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.settings = settings
        return F.max_pool2d(x, *settings)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return _pooled_again(x, gradient, ctx.settings), *(None,) * 5


class _SlidingMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.size = size
        return _sliding_max2d(x, size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated itself
            return _pooled_again(x, gradient, (ctx.size, 1)), None
        rows = _sliding_max(x, ctx.size, -1)
        gradient = _sliding_max_backward(rows, _sliding_max(rows, ctx.size, -2), gradient, ctx.size, -2)
        return _sliding_max_backward(x, rows, gradient, ctx.size, -1), None


def _pooled_again(x: Tensor, gradient: Tensor, settings: tuple[Any, ...]) -> Tensor:
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        source = x if again else x.detach().requires_grad_()
        (dx,) = torch.autograd.grad(F.max_pool2d(source, *settings), source, gradient, create_graph=again)
    return dx


@torch.no_grad()
def _sliding_max2d(x: Tensor, size: int) -> Tensor:
    return _sliding_max(_sliding_max(x, size, -1), size, -2)


def _sliding_max(x: Tensor, size: int, dim: int) -> Tensor:
    """Return the maxima of ``size`` neighbours along ``dim``: n places to n - size + 1."""
    places = x.shape[dim] - size + 1
    found = x.narrow(dim, 0, places)
    for k in range(1, size):
        found = torch.maximum(found, x.narrow(dim, k, places))
    return found


def _sliding_max_backward(x: Tensor, found: Tensor, gradient: Tensor, size: int, dim: int) -> Tensor:
    """Return x's gradient: each maximum's goes to the first place that has it, as in PyTorch's pooling (and here to the last for NaN)."""
    places, dx = found.shape[dim], torch.zeros_like(x)
    for k in range(size - 1):
        here = x.narrow(dim, k, places).clone().eq_(found).mul_(gradient)  # in place of a mask of bools: a third of the time
        dx.narrow(dim, k, places).add_(here)
        gradient = gradient - here
    dx.narrow(dim, size - 1, places).add_(gradient)
    return dx


class LeanResnetBlock(ResnetBlock2D):
    """A residual block of Stable Diffusion's kind that, on a CPU, computes its norms' outputs again; made by :func:`lean_layers`."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """(B, C, h, w) and the timesteps' embedding (B, D) to (B, C', h, w)."""
        small = torch.is_grad_enabled() and input_tensor.numel() < WORTH
        if small or input_tensor.device.type != "cpu":  # elsewhere autocast computes norms in float32
            return super().forward(input_tensor, temb, *args, **kwargs)
        x = self.conv1(norm_silu(self.norm1, input_tensor))
        if self.time_emb_proj is not None:
            assert temb is not None
            x = x + self.time_emb_proj(F.silu(temb))[:, :, None, None]
        x = self.conv2(norm_silu(self.norm2, x))
        found: Tensor = (input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)) + x
        return found


def _is_plain(block: ResnetBlock2D) -> bool:
    others = block.up, block.down, block.skip_time_act, block.dropout.p
    # A VAE's decoder calls its norm "group": for ResnetBlock2D that is a name for no timesteps at all.
    timesteps = {"default": True, "group": block.time_emb_proj is None}.get(block.time_embedding_norm, False)
    return timesteps and block.output_scale_factor == 1 and isinstance(block.nonlinearity, nn.SiLU) and not any(others)


def norm_silu(norm: nn.Module, x: Tensor) -> Tensor:
    """Return SiLU(norm(x)) for x (B, C, h, w)."""
    if not torch.is_grad_enabled():
        return F.silu(norm(x), inplace=True)
    if not isinstance(norm, nn.GroupNorm) or "forward" in vars(norm):  # another norm, or one whose statistics tiles share
        return F.silu(norm(x))
    found: Tensor = _NormSiLU.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    return found


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.groups, ctx.eps = groups, eps
        return F.silu(group_norm(x, weight, bias, groups, eps), inplace=True)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # the gradient will be differentiated itself
            inputs = [t for t, want in zip((x, weight, bias), wanted, strict=True) if want]
            z = F.silu(F.group_norm(x, ctx.groups, weight, bias, ctx.eps))
            found = iter(torch.autograd.grad(z, inputs, dz, create_graph=True))
            return *(next(found) if want else None for want in wanted), None, None
        last = is_channels_last(x)
        if last:  # there the backward pass of PyTorch's GroupNorm takes eight times as long, and it can crash
            x = x.contiguous()
        size = len(x), x.shape[1], x[0, 0].numel(), ctx.groups
        y, mean, rstd = torch.native_group_norm(x, weight, bias, *size, ctx.eps)
        dy = torch.ops.aten.silu_backward(dz.contiguous(), y)
        dx, *rest = torch.ops.aten.native_group_norm_backward(dy, x, mean, rstd, weight, *size, wanted)
        return (dx.contiguous(memory_format=torch.channels_last) if last else dx), *rest, None, None
