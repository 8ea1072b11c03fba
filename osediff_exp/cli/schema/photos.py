"""Keys of what is trained and tested on: photos, pairs, and how photos are degraded."""

from __future__ import annotations

from osediff_exp.cli.schema.rules import Rule, either, group, number, path, probability, several, span, text, whole, word
from osediff_exp.cli.schema.training import SEED

PHOTOS = either(str, list, null=True, items=path())
"""A folder, a text file of paths, or a list of these."""

SIDE = whole(8, 65536, multiple=8)
SIZES = several(whole(1, 255), 1)

PAIRS: dict[str, Rule] = {
    "crop_size": SIDE,
    "val_size": SIDE,
    "val_lr_root": path(null=True),
    "val_hr_root": path(null=True),
    "val_seed": SEED,
    "val_first": whole(0, null=True),
    "val_batch_size": whole(1, 65536),
    "num_workers": whole(0, 1024),
    "verify": word("header", "full"),
    "bad_images": word("refuse", "skip"),
    "cache_images": either(bool, int, float, low=0.0),
    "cache_dir": path(null=True),
    "cache_dir_gib": number(0.0),
    "reduce_to": whole(1, 65536, null=True),
}
"""What a datamodule takes, whatever its photos."""

DEGRADATION: dict[str, Rule] = {
    "scale": whole(1, 64),
    "parts.*.scale": whole(1, 64),
    "shares.*": probability(),
    "**sizes": SIZES,
    "**.families.*": probability(),
    "**.directions.*": probability(),
    "**beta_*": span(0.0, open="("),
    "**blur.sigma": span(1e-3, 1e3),
    "**cutoff": number(0.0, 1.0, open="("),
    "**wide_from": whole(1, 255),
    "**probability": probability(),
    "**resize.factor": span(0.0, 64.0, open="("),
    "downsample": span(1.0, 64.0),
    "**gaussian_sigma": span(0.0, 255.0),
    "noise_sigma": span(0.0, 255.0),
    "**poisson_scale": span(0.0, 1e3, open="("),
    "**jpeg_quality": span(0.0, 100.0),
}
"""What a degradation takes."""

RULES: dict[str, Rule] = {
    **{f"{place}.{name}": rule for place in ("data", "data.datamodule") for name, rule in PAIRS.items()},  # the datamodule repeats them
    "data.datamodule.val_?r_root": path(null=True),
    "data.root": PHOTOS,
    "data.val_root": PHOTOS,
    "data.lsdir_root": PHOTOS,
    "data.ffhq_root": PHOTOS,
    "data.lr_root": path(null=True),
    "data.hr_root": path(null=True),
    "data.first": whole(1, null=True),
    "data.ffhq_first": whole(1, null=True),
    "data.dataset": text(empty=False),
    "data.datamodule.train": several(group(), 1),
    "data.datamodule.val": several(group()),
    "val_degradation": group(null=True),
    **{f"{place}.{name}": rule for place in ("degradation", "val_degradation") for name, rule in DEGRADATION.items()},
}
"""Keys (patterns) and what they take; the first pattern that fits counts."""
