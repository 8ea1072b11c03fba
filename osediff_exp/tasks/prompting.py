"""Building what makes prompts, with its caches, from a configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from osediff_exp.models.prompt_cache.feature_store import FeatureStore
from osediff_exp.models.prompts import PromptExtractor, with_words
from osediff_exp.models.taggers.cached import cache_folder

if TYPE_CHECKING:
    from osediff_exp.models.backbone import Backbone

log = logging.getLogger(__name__)


def build_prompts(config: DictConfig) -> PromptExtractor:
    """Return the prompt extractor of the configuration: its source's, or a constant one where ``prompt.words`` says so."""
    prompt = config.prompt
    return with_words(prompt.words, positive=prompt.positive, build=lambda: instantiate(prompt.extractor))


def feature_store(config: DictConfig, backbone: Backbone) -> Callable[[], FeatureStore] | None:
    """Return what opens the store of the backbone's text features; None where ``prompt.cache`` is null."""
    root = cache_folder(config.prompt.cache)
    if root is None:
        return None
    return lambda: FeatureStore(root, encoder=backbone.text_encoder_key(), limit_gib=config.prompt.cache_gib)


def log_cache(figures: Mapping[str, Any]) -> None:
    """Say how often prompts were known."""
    for name, what in (("tag_cache", "tags"), ("text_cache", "text features")):
        if f"{name}_hits" in figures:
            log.info("%s: %d from the cache, %d computed", what, figures[f"{name}_hits"], figures[f"{name}_misses"])
