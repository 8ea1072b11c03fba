"""Names for contents: of pictures, of weight files, of a text encoder. Equal names mean equal contents."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BLOCK = 1 << 20
_WHOLE = 256 << 20  # bytes up to which a file is read from end to end
_SAMPLES = 64


def digest(*parts: str | bytes) -> str:
    """Return 32 hex digits that identify the parts, in their order."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        state.update(len(content).to_bytes(8, "little") + content)
    return state.hexdigest()


def digest_of(description: Mapping[str, Any]) -> str:
    """Return 32 hex digits that identify plain data."""
    return digest(json.dumps(description, sort_keys=True))


def picture_keys(images: Tensor) -> list[str]:
    """Return the names of pictures (B, 3, H, W) in [0, 1] by their 8-bit pixels, which are brought to the CPU once for all."""
    pixels = images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().contiguous()
    return [digest(f"picture{tuple(picture.shape)}", picture.numpy().tobytes()) for picture in pixels]


def file_key(path: Path) -> str:
    """Return the name of a file by its bytes; one that has not changed is read once per process."""
    status = path.stat()
    return _file_key(path, status.st_size, status.st_mtime_ns)


@cache
def _file_key(path: Path, size: int, changed: int) -> str:
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def weights_key(path: Path) -> str:
    """Return the name of a weight file, or of the weights in a folder, without reading gigabytes.

    torch's archives carry a checksum of every tensor in their directory, and that directory is read. Of other files above 256 MiB
    (safetensors) size, first MiB (names and shapes) and 64 blocks spread over the file count: a training changes all of them.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        return digest(*(part for file in files for part in (file.name, weights_key(file))))
    size = path.stat().st_size
    if size <= _WHOLE:
        return file_key(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()  # each below a folder called as the file was when it was saved
        return digest(*(f"{entry.filename.partition('/')[2]} {entry.file_size} {entry.CRC}" for entry in entries))
    with path.open("rb") as file:
        blocks = [file.read(_BLOCK)]
        for k in range(_SAMPLES):
            file.seek((size - _BLOCK) * (k + 1) // _SAMPLES)
            blocks.append(file.read(_BLOCK))
    return digest(str(size), *blocks)


def encoder_key(text_encoder: nn.Module, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the name of a text encoder: every bit of its weights, and the tokenizer's vocabulary and length."""
    state = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(text_encoder.state_dict().items()):
        content = weight.detach().cpu().contiguous()
        state.update(f"{name}{tuple(content.shape)}{content.dtype}".encode())
        state.update(content.reshape(-1).view(torch.uint8).numpy())
    vocabulary = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return digest(state.hexdigest(), vocabulary, str(tokenizer.model_max_length))
