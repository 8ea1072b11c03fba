"""What task=pretrain wires together: weights that are shown, photos and a VAE that fit, or one line before anything is computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tiny_parts import make_data
from torch import Tensor

from osediff_exp.cli.inputs import check_inputs
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import UserError
from osediff_exp.pretraining.initial import load_vae
from osediff_exp.runtime import quiet_libraries
from osediff_exp.tasks import pretrain

register_resolvers()
CONF = Path(__file__).parents[2] / "conf"
VAE = Path(__file__).parents[2] / "osediff_exp" / "models" / "weights" / "tiny" / "vae"


def configuration(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["task=pretrain", "pretrain.accelerator=cpu", "data.num_workers=0", *overrides])


class Grey(pl.LightningModule):
    """One weight, which falls by .1 at every step; what it validates and what it shows is that weight."""

    def __init__(self) -> None:
        super().__init__()
        self.grey = torch.nn.Parameter(torch.tensor(0.9))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.grey

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/grey", self.grey.detach(), batch_size=1)

    def pictures(self, batch: Any) -> dict[str, Tensor]:
        return {"grey": self.grey.detach().expand(1, 3, 4, 4)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_pictures_are_of_the_weights_that_the_figures_measure(tmp_path: Path) -> None:
    quiet_libraries()
    settings: Any = OmegaConf.to_container(configuration().pretrain, resolve=True)
    settings |= {"max_steps": 4, "validate_every": 4, "precision": "32-true", "ema_decay": 0.9, "clip_norm": 0.0}
    data = make_data(tmp_path / "photos", batch_size=1)
    data.setup("fit")
    trainer = pretrain._fit(Grey(), data, OmegaConf.create({"resume": None}), settings, tmp_path)
    measured = float(trainer.callback_metrics["val/grey"])
    assert measured > 0.52  # the average; the weight itself is .5
    shown = np.asarray(Image.open(tmp_path / "images" / "step_000004.png"))
    assert np.abs(shown / 255 - measured).max() < 1 / 255


def test_photos_smaller_than_the_crops_that_are_encoded_are_told_before_anything_is_encoded(tmp_path: Path) -> None:
    config = configuration("stage=prior", f"pretrain.vae={VAE}", "pretrain.latents.count=4", "data.val_first=1")
    with pytest.raises(
        UserError, match=r"crop_size=512 is larger than 60 of 60 training photos, .*384 x 384.* first: set it to 384 or less"
    ):
        pretrain.run(config, tmp_path)
    assert not (tmp_path / "latents").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json: train it first"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (
            lambda folder: (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"})),
            "is a UNet2DConditionModel",
        ),
        (lambda folder: next(folder.glob("*.safetensors")).write_bytes(b"damaged"), "cannot be read"),
        (lambda folder: next(folder.glob("*.safetensors")).rename(folder / "diffusion_pytorch_model.bin"), "cannot be read"),
    ],
)
def test_a_folder_without_a_whole_vae_is_one_clear_line(tmp_path: Path, change: Any, message: str) -> None:
    folder = tmp_path / "vae"
    shutil.copytree(VAE, folder)
    load_vae(folder)
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_vae(folder)
    assert "\n" not in str(caught.value)


def test_a_wrong_path_of_the_vae_is_told_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r"pretrain\.vae=/nowhere/vae: there is no such file or folder"):
        check_inputs(configuration("stage=prior", "pretrain.vae=/nowhere/vae"))


@pytest.mark.parametrize(("accelerator", "kind"), [("cpu", "cpu"), ("auto", "cuda"), ("gpu", "cuda"), ("cuda", "cuda"), ("mps", "cpu")])
def test_photos_are_encoded_where_the_training_will_be(monkeypatch: pytest.MonkeyPatch, accelerator: str, kind: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pretrain._encoding_device(accelerator).type == kind
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pretrain._encoding_device(accelerator).type == "cpu"
