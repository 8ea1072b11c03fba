"""The restorer: a trained generator with all that a photo needs before and after it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.checkpoints.training_identity import training_of
from osediff_exp.data.images import ByteImage
from osediff_exp.errors import UserError
from osediff_exp.models.asking import restore_pictures
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.cpu_kernels import suit_cpu
from osediff_exp.models.generator_base import Generator
from osediff_exp.models.lean_layers import lean_layers
from osediff_exp.models.light_decoder import LightDecoder, load_light_decoder
from osediff_exp.models.prompt_features import PromptFeatures
from osediff_exp.models.prompts import PromptExtractor
from osediff_exp.models.tiling import Tiling
from osediff_exp.models.winograd import winograd_layers, winograd_serves
from osediff_exp.restoration.base import ImageRestorer
from osediff_exp.restoration.colour_fix import ColorFix, check_color_fix, fix_color_
from osediff_exp.restoration.enlarging import as_bytes, as_network_input, low_quality, pad_to_multiple, resize_to
from osediff_exp.restoration.numerics import choose_device, deterministic_numerics
from osediff_exp.restoration.pictures import Picture, from_pil, to_pil
from osediff_exp.runtime import return_freed_memory

AutocastType = Literal["bfloat16", "float16"]

MAX_SCALE = 8
LARGE = 32 << 20  # pixels of an output for which memory counts more than time
_DEFAULT_TILING = Tiling()


class Restorer(ImageRestorer):
    """Enlarges and restores photos of any size.

    The low-quality picture is rounded to 8 bit and enlarged with Pillow's bicubic, as in training, mirrored up to sides the networks can
    take, restored, cut, and given the enlargement's colours. One step has no noise, and a sampler's is a function of seed and name, so the
    same call gives the same bits.

    Args:
        backbone: encodes prompts; its sides' multiple is kept to. It and the generator are moved to ``device``.
        generator: of any number of steps; put into evaluation mode.
        prompts: sees the enlargement.
        color_fix: ``adain`` (OSEDiff's default), ``wavelet`` or ``none``, see :func:`osediff_exp.restoration.colour_fix.fix_color_`.
        tiling: sizes of the tiles that the networks see; None: the whole picture at once.
        decoder: decodes in the place of the generator's own decoder; None: that one.
        min_side: in pixels; a picture whose output would be shorter is enlarged before it is restored and reduced afterwards.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: autocast to ``bfloat16`` or ``float16``; None: compute in the weights' own type.
        steps, guidance: of a generator that samples; None: as it was trained.
        seed: of a sampler's noise, which is a function of (seed, picture's name): the same alone, in a batch and in tiles.
        negative_prompt: the far end of guidance.

    Raises:
        UserError: an option has no such value, or there is no such device.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        generator: Generator,
        prompts: PromptExtractor,
        color_fix: ColorFix = "adain",
        tiling: Tiling | None = _DEFAULT_TILING,
        decoder: LightDecoder | None = None,
        min_side: int = 0,
        device: str = "auto",
        dtype: AutocastType | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        negative_prompt: str = "",
    ) -> None:
        check_color_fix(color_fix)
        if dtype not in (None, "bfloat16", "float16"):
            raise UserError(f"dtype={dtype} is unknown: use bfloat16 or float16, or none to compute in the weights' own type")
        if min_side < 0:
            raise UserError(f"min_side={min_side} is below 0: give a number of pixels, 0 for no limit")
        self.device = choose_device(device)
        self.backbone = backbone.to(self.device)
        self.generator = generator.to(self.device).eval()
        self.tiling = self.generator.tiling = tiling
        self.generator.use_light_decoder(decoder and decoder.to(self.device))
        self.generator.set_sampling(steps=steps, guidance=guidance)
        self.seed, self.negative_prompt, self.steps = seed, negative_prompt, self.generator.steps
        self.color_fix: ColorFix = color_fix
        self.prompts, self.min_side = prompts, min_side
        self.dtype = None if dtype is None else getattr(torch, dtype)
        self._prompt_features = PromptFeatures(self.backbone.encode_prompts)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        settings: Mapping[str, Any] | None = None,
        backbone: Backbone | None = None,
        sources: list[str] | None = None,
        packages: Sequence[str] = (),
        prompt: Mapping[str, Any] | None = None,
        average: bool = True,
        color_fix: ColorFix | None = None,
        tiling: Tiling | None = _DEFAULT_TILING,
        decoder: str | None = None,
        min_side: int | None = None,
        device: str = "auto",
        dtype: AutocastType | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        negative_prompt: str | None = None,
    ) -> Restorer:
        """Load a checkpoint of any kind: a run folder, a ``.ckpt``, an ``osediff.pkl``, an exported folder.

        Args:
            path, settings, backbone, sources, packages, prompt, average: see :func:`osediff_exp.checkpoints.loading.load_checkpoint`.
            decoder: ``light``, the light decoder that lies beside the backbone's weights, or a folder, see
                :func:`osediff_exp.models.light_decoder.load_light_decoder`; None: the checkpoint's own decoder.
            min_side: None: what the checkpoint's configuration recommends (``backbone.recipe.min_side``, else 0).
            color_fix: None: what it recommends: ``method.color_fix``, the method's released one, else ``backbone.recipe.color_fix``, else
                ``adain``.
            negative_prompt: None: the checkpoint's (``prompt.negative``, else none).
            tiling, device, dtype, steps, guidance, seed: see the class.

        Raises:
            UserError: as the class, or the checkpoint cannot be loaded.
        """
        loaded = load_checkpoint(
            path, settings=settings, backbone=backbone, sources=sources, packages=packages, prompt=prompt, average=average
        )
        recipe = loaded.config.get("backbone", {}).get("recipe") or {}
        method = loaded.config.get("method") or {}
        recommended_fix: ColorFix = method.get("color_fix") or recipe.get("color_fix") or "adain"
        restorer = cls(
            backbone=loaded.backbone,
            generator=loaded.generator,
            prompts=loaded.prompts,
            color_fix=recommended_fix if color_fix is None else color_fix,
            tiling=tiling,
            decoder=None if decoder is None else load_light_decoder(decoder, loaded.backbone),
            min_side=(recipe.get("min_side") or 0) if min_side is None else min_side,
            device=device,
            dtype=dtype,
            steps=steps,
            guidance=guidance,
            seed=seed,
            negative_prompt=str(loaded.config.get("prompt", {}).get("negative", "")) if negative_prompt is None else negative_prompt,
        )
        restorer.method, restorer.training = method.get("name"), training_of(loaded.config)
        if backbone is None and restorer.device.type == "cpu":  # none of the caller's networks is among them
            restorer._suit_cpu()
        return restorer

    def _suit_cpu(self) -> None:
        """Give the networks the layers and layouts that are fast on this processor."""
        networks = self.backbone.unet, self.backbone.vae, self.generator
        if self.dtype is None and winograd_serves():
            light = self.generator.light_decoder
            winograd_layers(*networks, *([] if light is None else [light.network]))
        else:
            suit_cpu(*networks)
        lean_layers(*networks)  # without gradients: SiLU in place

    @overload
    def restore(self, image: Image.Image, *, scale: int = 4, name: str = "image") -> Image.Image: ...

    @overload
    def restore(self, image: Tensor, *, scale: int = 4, name: str = "image") -> Tensor: ...

    def restore(self, image: Image.Image | Tensor, *, scale: int = 4, name: str = "image") -> Image.Image | Tensor:
        """Enlarge ``image`` by ``scale`` (1..8) and restore it.

        Args:
            image: a Pillow image, or RGB pictures (B, 3, H, W) in [0, 1] (they are rounded to 8 bit first).
            scale: by which both sides grow; 1 restores without enlarging.
            name: the picture's: a sampler draws its noise by it (all pictures of a tensor have the same), and prompt extractors may look
                prompts up by it.

        Returns:
            For a Pillow image one of mode L, LA, RGB, RGBA or I;16: upright, grey where it was grey, with its transparency and colour
            profile. For a tensor (B, 3, scale * H, scale * W), float32 in [0, 1], not rounded to 8 bit, where ``image`` was.

        Raises:
            UserError: the image or the scale is none that can be restored.
        """
        if isinstance(image, Image.Image):
            try:
                picture = from_pil(image)
            except ValueError as error:
                raise UserError(f"{name} cannot be restored: {error}") from error
            return to_pil(self.restore_picture(picture, scale=scale, name=name))
        if not isinstance(image, Tensor):
            taken = "a Pillow image (Image.open of a file, Image.fromarray of an array), or a tensor (B, 3, H, W) in [0, 1]"
            raise UserError(f"{name} cannot be restored: it is of type {type(image).__name__}: give {taken}")
        names = [name] * (len(image) if image.ndim else 0)
        return self(image.detach().cpu(), scale=scale, names=names).to(image.device)

    def restore_picture(self, picture: Picture, *, scale: int, name: str) -> Picture:
        """Restore a photo with its transparency and its bits, as :meth:`restore` does for Pillow images."""
        with torch.inference_mode():
            return picture.rebuilt(self._restore([picture.rgb()], scale, [name])[0])

    def tell_steps(self, on_step: Callable[[int, int], None]) -> None:
        self.generator.on_step = on_step

    def __call__(self, lr: Tensor, *, scale: int, names: list[str]) -> Tensor:
        if lr.ndim != 4 or lr.shape[1] != 3 or not lr.is_floating_point():
            raise UserError(f"expected pictures (B, 3, H, W) in [0, 1], floating point; got {tuple(lr.shape)}, {lr.dtype}")
        if not torch.isfinite(lr).all():
            raise UserError(f"{', '.join(dict.fromkeys(names))}: not finite (NaN or infinity in it): give pictures in [0, 1]")
        pixels = lr.float().clamp(0, 1).mul_(255).round_().byte().permute(0, 2, 3, 1).numpy()
        with torch.inference_mode():
            restored = self._restore([np.ascontiguousarray(picture) for picture in pixels], scale, names)
        return restored.clone(memory_format=torch.contiguous_format)  # made outside inference mode, so that it may meet gradients

    def _restore(self, pictures: list[ByteImage], scale: int, names: list[str]) -> Tensor:
        """Return (B, 3, scale * h, scale * w) in [0, 1] for B pictures (h, w, 3) of one size."""
        if isinstance(scale, bool) or not isinstance(scale, int) or not 1 <= scale <= MAX_SCALE:
            raise UserError(f"scale={scale} is not possible: give a whole number from 1 to {MAX_SCALE}")
        if not pictures or 0 in pictures[0].shape:
            raise UserError("there is no pixel to restore: give at least one picture of at least 1 x 1")
        height, width = pictures[0].shape[:2]
        enlarged = [low_quality(picture, scale=scale, min_side=self.min_side) for picture in pictures]
        output, reference = self._generate(enlarged, names)
        if reference is None:
            reference = as_bytes(enlarged)
        fix_color_(output, reference, self.color_fix)
        return resize_to(output, scale * height, scale * width)

    def _embed(self, prompts: list[str]) -> Tensor:
        return self._prompt_features(prompts).to(self.device)

    def _told(self, seen: Tensor, names: list[str]) -> tuple[Tensor, Tensor | None]:
        """Return the text features, and the image features where the generator wants them, of pictures (B, 3, H, W) in [0, 1]."""
        embeds = self._embed(self.prompts(seen, names))
        return embeds, self.prompts.image_embeds(seen.to(self.device)) if self.generator.wants_image_embeds else None

    def _generate(self, enlarged: list[ByteImage], names: list[str]) -> tuple[Tensor, Tensor | None]:
        """Return the generator's pictures, in [0, 1] on the CPU, of B enlargements (H, W, 3), and those whose colours they should have."""
        height, width = enlarged[0].shape[:2]
        padded = [pad_to_multiple(picture, self.backbone.size_multiple) for picture in enlarged]
        precision = contextlib.nullcontext() if self.dtype is None else torch.autocast(self.device.type, dtype=self.dtype)
        with deterministic_numerics(), precision:
            lq = as_network_input(padded)
            embeds, image_embeds = self._told(lq[..., :height, :width], names)
            self.generator.tiling = self.tiling and self.tiling.settled(side=max(lq.shape[-2:]), factor=self.backbone.vae_factor)
            whole = self.tiling is None  # else the picture stays here, and its tiles travel
            # A large picture's floats go before as many come out.
            lq = as_bytes(padded) if self.generator.takes_bytes and not whole else lq.mul_(2).sub_(1)
            if height * width > LARGE:
                return_freed_memory()  # of decoding and of the floats: the output would lie beside it
            restored = restore_pictures(
                self.generator,
                lq.to(self.device) if whole else lq,
                embeds,
                names=names,
                seed=self.seed,
                negative_embeds=lambda: self._embed([self.negative_prompt] * len(names)),
                image_embeds=image_embeds,
            )
        image = restored.image[..., :height, :width].float().cpu()
        if not torch.isfinite(image.sum()):
            raise UserError(f"{', '.join(names)}: the output is not finite; compute in bfloat16, or without dtype")
        reference = restored.reference
        if reference is not None:
            reference = ((reference[..., :height, :width].float().cpu() + 1) / 2).clamp_(0, 1)
        return image.add_(1).div_(2).clamp_(0, 1), reference
