"""Captions from any image-to-text model that transformers loads: Table 4's LLaVA row with LLaVA, BLIP or GIT without an instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import DType
from osediff_exp.models.places import find_file
from osediff_exp.models.prompt_cache.fingerprints import weights_key
from osediff_exp.models.prompts import TaggedPrompt
from osediff_exp.models.taggers.base import Tag, Tagger
from osediff_exp.models.taggers.cached import CachedTagger

_VERSION = 1


class Captioner(Tagger):
    """One "tag" per picture: what the model says of it, greedily, so that the same picture gets the same words.

    Args:
        folder: a model in transformers' layout, with its processor.
        instruction: the text that a model of dialogues is asked, its marks included ("USER: <image>\\nDescribe the image. ASSISTANT:");
            None: a model that captions by itself.
        max_new_tokens: longest caption in tokens.
        dtype: of the network.

    Raises:
        UserError: the folder holds no such model.
    """

    def __init__(self, folder: Path, *, instruction: str | None, max_new_tokens: int, dtype: DType) -> None:
        self.instruction, self.max_new_tokens = instruction, max_new_tokens
        self.processor, self.network = _load(folder, getattr(torch, dtype))

    def __call__(self, images: Tensor, max_tags: int) -> list[list[Tag]]:
        self.network.to(images.device)  # type: ignore[arg-type]
        return [[Tag(caption, 1.0)] if caption else [] for caption in map(self._caption, images)]

    def _caption(self, image: Tensor) -> str:
        pixels = image.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
        given: dict[str, Any] = {} if self.instruction is None else {"text": self.instruction}
        inputs = self.processor(images=Image.fromarray(np.ascontiguousarray(pixels)), return_tensors="pt", **given).to(image.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.network.dtype)
        with torch.inference_mode(), torch.autocast(image.device.type, enabled=False):
            answer = self.network.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)[0]
        asked = self._text(inputs["input_ids"][0]) if "input_ids" in inputs else ""
        return self._text(answer).removeprefix(asked).strip()  # a decoder repeats what it was asked

    def _text(self, tokens: Tensor) -> str:
        return " ".join(self.processor.decode(tokens, skip_special_tokens=True).split())


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        network = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"prompt.model={folder} is no captioner that transformers loads ({reason}): give a folder with model and processor"
        ) from error
    return processor, network.requires_grad_(False).eval()


class CaptionPrompt(TaggedPrompt):
    """A caption of each image between a prefix and a suffix (paper, Table 4, "LLaVA-v1.5").

    Args:
        prompt, prefix: see :class:`TaggedPrompt`.
        model: the captioner's folder: a path, or a name in one of :func:`osediff_exp.models.places.weight_folders`.
        instruction, max_new_tokens, dtype: see :class:`Captioner`.
        cache: where captions are kept (see :func:`osediff_exp.models.taggers.cached.cache_folder`).
    """

    def __init__(
        self,
        *,
        model: str,
        prompt: str = "",
        prefix: str = "",
        instruction: str | None = None,
        max_new_tokens: int = 64,
        dtype: DType = "float32",
        cache: str | None = None,
    ) -> None:
        if max_new_tokens < 1:
            raise UserError(f"prompt.max_new_tokens={max_new_tokens} leaves no caption: give at least 1")
        if dtype not in get_args(DType):
            raise UserError(f"prompt.dtype={dtype} is unknown: use {', '.join(get_args(DType))}")
        folder = find_file(model, "prompt.model")
        if not (folder / "config.json").is_file():
            raise UserError(f"prompt.model={folder} is no model's folder (no config.json): give one in transformers' layout")
        settings: dict[str, Any] = {"instruction": instruction, "max_new_tokens": max_new_tokens, "dtype": dtype}
        described = {"tagger": folder.name, "version": _VERSION, "weights": weights_key(folder), **settings}
        tagger = CachedTagger(lambda: Captioner(folder, **settings), described=described, asked=1, cache=cache)
        super().__init__(prompt=prompt, tagger=tagger, max_tags=1, prefix=prefix)
