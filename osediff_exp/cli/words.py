"""Values that are one of a few words; the option files' comments list the same ones, with what they mean."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from osediff_exp.errors import nearest

_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
_ACCELERATORS = ("cpu", "gpu", "cuda", "mps", "tpu", "auto")
_WORDS: dict[str, tuple[str, ...]] = {
    "trainer.precision": _PRECISIONS,
    "trainer.accelerator": _ACCELERATORS,
    "pretrain.precision": _PRECISIONS,
    "pretrain.accelerator": _ACCELERATORS,
    "stage": ("vae", "prior", "dape"),
    "prompt.words": ("own", "other", "fixed", "none"),
    "prompt.train_image": ("hq", "lq", "photo"),
    "prompt.test_image": ("lq", "hq"),
    "prompt.dtype": ("float32", "bfloat16", "float16"),
    "prompt.order": ("list", "score"),
    "target": ("html", "wandb", "all"),
    "generator.latent": ("sample", "mode"),
    "generator.chain": ("ancestral", "deterministic"),
    "generator.alpha": ("fixed", "rank", "rslora"),
    "generator.unet_alpha": ("fixed", "rank", "rslora"),
    "generator.vae_alpha": ("fixed", "rank", "rslora"),
    "loss.terms.*.alpha": ("fixed", "rank", "rslora"),
    "loss.terms.*.objective": ("hinge", "softplus"),
    "loss.terms.*.weighting": ("normalized", "sigma2"),
    "logger.wandb.mode": ("auto", "online", "offline", "disabled"),
    "restorer.color_fix": ("adain", "wavelet", "none"),
    "restorer.dtype": ("bfloat16", "float16"),
}
"""Keys (patterns) and their words."""


def words_for(key: str) -> tuple[str, ...] | None:
    """Return the words that a key takes, or None where any text may stand."""
    return next((words for pattern, words in _WORDS.items() if fnmatchcase(key, pattern)), None)


def word_problem(key: str, value: Any) -> str | None:
    """Return what is wrong with a text that should be one of a few words, or None."""
    words = words_for(key) if isinstance(value, str) else None
    if words is None or value in words or value == "???":
        return None
    return f"{key}={value} is none of {', '.join(words)}.{nearest(value, words)}"
