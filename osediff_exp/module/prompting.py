"""Which picture of a batch the prompts tell about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from osediff_exp.data.photo_files import PhotoFile
from osediff_exp.errors import UserError, nearest
from osediff_exp.models.prompts import PromptExtractor

TRAIN_IMAGES, TEST_IMAGES = ("hq", "lq", "photo"), ("lq", "hq")


class BatchPrompts:
    """Prompts of a batch's pictures; where a sample brings ``other``, they tell about that one instead.

    Args:
        extractor: c_y = Y(x).
        train_image: ``hq``: the ground truth's crop (paper, section 3.2, and released code); ``lq``; ``photo``: the whole photo that it was
            cut from, told about once however often it is cropped.
        test_image: ``lq`` (paper) or ``hq``.

    Raises:
        UserError: there is no such picture.
    """

    def __init__(self, extractor: PromptExtractor, *, train_image: str = "hq", test_image: str = "lq") -> None:
        for key, value, choices in (("train_image", train_image, TRAIN_IMAGES), ("test_image", test_image, TEST_IMAGES)):
            if value not in choices:
                raise UserError(f"prompt.{key}={value} is unknown: use {' or '.join(choices)}.{nearest(value, choices)}")
        self.extractor, self.train_image, self.test_image = extractor, train_image, test_image

    def training(self, batch: dict[str, Any]) -> list[str]:
        """Return the prompts that a training step uses."""
        return self._of(self.extractor.in_training, batch.get("other", batch), self.train_image)

    def testing(self, batch: dict[str, Any]) -> list[str]:
        """Return the prompts that a validation uses."""
        return self._of(self.extractor, batch.get("other", batch), self.test_image)

    def _of(self, extractor: PromptExtractor, batch: dict[str, Any], image: str) -> list[str]:
        if image == "photo":
            return extractor.of_photos([PhotoFile(Path(path)) for path in batch["path"]], like=batch["hq"])
        return extractor.of_crops(batch[image], batch["name"], batch["path"])
