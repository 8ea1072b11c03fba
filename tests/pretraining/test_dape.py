"""DAPE learns, through LoRA alone, to answer for degraded pictures as RAM does for clean ones; its file is one that prompt=ram reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from ram_parts import SHAPE, random_lora, random_weights, write_ram
from tiny_parts import write_photos
from torch import Tensor

from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import UserError
from osediff_exp.models.taggers.ram.layout import build_ram, load_lora, lora_tensors, read_tensors
from osediff_exp.models.taggers.ram.lora import merge
from osediff_exp.models.taggers.ram.network import RAMOutput, prepare
from osediff_exp.pretraining.dape import DAPEPretraining, alignment
from osediff_exp.tasks import pretrain

register_resolvers()
CONF = Path(__file__).parents[2] / "conf"


def module(**settings: float) -> DAPEPretraining:
    defaults = {"rank": 8, "logits_weight": 1.0, "learning_rate": 1e-3, "weight_decay": 0.0, "warmup_steps": 0, "max_steps": 10}
    return DAPEPretraining(build_ram(random_weights(), image_size=32), antialias=True, **defaults | settings)  # type: ignore[arg-type]


def batch() -> dict[str, Tensor]:
    hq = torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    return {"hq": hq, "lq": torch.nn.functional.avg_pool2d(hq, 5, stride=1, padding=2)}


def test_nothing_is_lost_where_the_outputs_agree_and_logits_lose_in_closed_form() -> None:
    teacher = RAMOutput(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 5, 3))
    assert all(float(loss) == pytest.approx(0.0, abs=1e-6) for loss in alignment(teacher, teacher).values())
    student = RAMOutput(torch.tensor([[1.0, 2.0]]), torch.full((1, 5, 3), 2.0))
    found = alignment(student, teacher)
    p, q = torch.tensor(0.5), torch.sigmoid(torch.tensor(1.0))  # KL(p || q) of the first tag, averaged over both
    assert float(found["logits"]) == pytest.approx(float(p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()) / 2, rel=1e-4)
    assert float(found["embeds"]) == pytest.approx(4.0)


def test_the_loss_is_ram_on_clean_against_dape_on_degraded_pictures() -> None:
    trained, lora = module(logits_weight=0.5), random_lora()
    load_lora(trained.network, lora, "the LoRA")
    ram, dape = (build_ram(weights, image_size=32) for weights in (random_weights(), merge(random_weights(), lora)))
    pictures = batch()
    parts = alignment(dape(prepare(pictures["lq"], size=32)), ram(prepare(pictures["hq"], size=32)))
    assert float(trained.losses(pictures)["loss"].detach()) == pytest.approx(float(parts["embeds"] + 0.5 * parts["logits"]), rel=1e-3)


def test_lora_alone_trains_and_the_degraded_pictures_come_closer() -> None:
    trained = module()
    before = {name: value.detach().clone() for name, value in trained.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-2)
    pictures, losses = batch(), []
    for _ in range(12):
        loss = trained.losses(pictures)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    moved = {name for name, value in trained.named_parameters() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if name.endswith(("lora_A", "lora_B"))}
    assert trained.state_dict().keys() == moved


def configuration(weights: Path, photos: Path, *overrides: str) -> DictConfig:
    ram = ["prompt=ram", f"prompt.weights={weights}/ram_swin_large_14m.pth", "prompt.image_size=32"]
    data = [
        "data=folder",
        f"data.root={photos}",
        f"data.val_root={photos}/1.png",
        "data.crop_size=32",
        "data.val_size=32",
        "data.num_workers=0",
    ]
    steps = ["pretrain.max_steps=3", "pretrain.batch_size=2", "pretrain.validate_every=3", "pretrain.precision=32-true"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["task=pretrain", "stage=dape", "degradation=bicubic", *ram, *data, *steps, *overrides])


def test_the_command_leaves_a_dape_that_ram_reads_and_training_goes_on_from(tmp_path: Path) -> None:
    weights, photos = write_ram(tmp_path / "ram"), write_photos(tmp_path / "photos", 3)
    (tmp_path / "run").mkdir()
    figures = pretrain.run(configuration(weights, photos, "pretrain.accelerator=cpu"), tmp_path / "run")
    dape = read_tensors(tmp_path / "run" / "DAPE.pth")
    assert dape.keys() == random_lora().keys()
    assert any(float(value.abs().max()) > 0 for name, value in dape.items() if name.endswith("lora_B"))
    assert figures["steps"] == 3
    assert figures["val_without_lora"] > 0
    assert figures["params_trained"] == sum(value.numel() for value in dape.values())
    network = build_ram(random_weights(), dape, image_size=32)
    assert network.shape == SHAPE
    (tmp_path / "again").mkdir()
    onward = configuration(weights, photos, "pretrain.accelerator=cpu", f"prompt.lora={tmp_path}/run/DAPE.pth", "pretrain.max_steps=1")
    onward.pretrain.dape.learning_rate = 0.0
    pretrain.run(onward, tmp_path / "again")
    assert all(torch.equal(value, dape[name]) for name, value in read_tensors(tmp_path / "again" / "DAPE.pth").items())


def test_a_prompt_that_is_not_rams_and_another_rank_are_the_users(tmp_path: Path) -> None:
    weights, photos = write_ram(tmp_path / "ram"), write_photos(tmp_path / "photos", 3)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain = compose("config", ["task=pretrain", "stage=dape", "data=folder", f"data.root={photos}"])
    with pytest.raises(UserError, match="add prompt=ram"):
        pretrain.run(plain, tmp_path)
    with pytest.raises(UserError, match=r"has another rank: set pretrain\.dape\.rank"):
        pretrain.run(configuration(weights, photos, f"prompt.lora={weights}/DAPE.pth", "pretrain.dape.rank=4"), tmp_path)


def test_another_rank_keeps_its_own_factor() -> None:
    trained = module(rank=2)
    lora = {name: torch.ones_like(value) for name, value in lora_tensors(trained.network).items()}
    load_lora(trained.network, lora, "the LoRA")
    merged = build_ram(random_weights(), lora, image_size=32)
    x = prepare(batch()["lq"], size=32)
    assert torch.allclose(trained.network(x).logits, merged(x).logits, atol=1e-3)
