"""SeeSR and PASD from the real configuration: two steps, a checkpoint, a restored picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny_parts import make_data, make_trainer

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.restoration.restorer import Restorer
from osediff_exp.tasks.methods import build_method
from osediff_exp.tasks.train import build_module

CONF = Path(__file__).parents[2] / "conf"
register_resolvers()


@pytest.mark.parametrize(
    ("name", "recipe", "steps", "guidance"),
    [("seesr", "null", 50, 5.5), ("pasd", "1", 20, 1.0)],  # with the released guidance, and trained without: both restore with another
)
def test_two_steps_then_a_picture(
    backbone: Backbone, backbone_folder: Path, tmp_path: Path, name: str, recipe: str, steps: int, guidance: float
) -> None:
    overrides = [f"method={name}", f"backbone.loader.sources=[{backbone_folder}]", "metrics=psnr_ssim", "trainer.max_steps=2"]
    overrides.append(f"backbone.recipe.sampling_guidance={recipe}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides)
    module = build_module(config, backbone, tmp_path)
    assert (module.generator.steps, module.generator.guidance) == (steps, guidance)
    assert module.prompts.extractor.prompt == "clean, high-resolution, 8k"  # behind the tags
    assert module.negative_prompt.startswith({"seesr": "dotted, noise, blur", "pasd": "blurry, dotted, noise"}[name])
    trainer = make_trainer(tmp_path, callbacks=[LastCheckpoint(every=2)])
    trainer.fit(module, datamodule=make_data(tmp_path / "photos", batch_size=2, num_val=0))
    restorer = Restorer.from_checkpoint(tmp_path / "checkpoints" / "last.ckpt", backbone=backbone, steps=2, guidance=2.0)
    assert all(torch.equal(restorer.generator.own_tensors()[key], weight) for key, weight in module.generator.own_tensors().items())
    picture = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    restored = restorer(picture, scale=1, names=["a"])
    assert restored.shape == picture.shape
    assert torch.equal(restored, restorer(picture, scale=1, names=["a"]))
    assert not torch.allclose(restored, restorer(picture, scale=1, names=["b"]), atol=1e-3)


def test_seesr_without_a_tagger_is_the_users_mistake(backbone: Backbone, backbone_folder: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["method=seesr", "prompt=fixed", f"backbone.loader.sources=[{backbone_folder}]"])
    with pytest.raises(UserError, match="choose prompt=tagged or prompt=ram"):
        build_method(config, backbone)


def test_the_tokens_follow_the_tagger() -> None:
    for prompt, shape in (("tagged", [50, 1280]), ("ram", [145, 512])):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            assert list(compose("config", ["method=seesr", f"prompt={prompt}"]).generator.image_embeds_shape) == shape
