"""task=tag: it tags what a training will ask about, goes on where it was stopped, and runs RAM on any tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from ram_parts import TAGS, random_weights, write_ram
from tiny_parts import write_photos

from osediff_exp.cli.inputs import check_inputs
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.data.photo_files import PhotoFile
from osediff_exp.data.sidecar import SidecarPrompt
from osediff_exp.errors import Incomplete, UserError
from osediff_exp.models.prompts import FixedPrompt, TaggedPrompt
from osediff_exp.models.taggers.ram.layout import build_ram
from osediff_exp.module.prompting import BatchPrompts
from osediff_exp.tasks import tag
from osediff_exp.tasks.prompting import build_prompts
from osediff_exp.tasks.tag.filling import num_samples
from osediff_exp.tasks.tag.tensors import read_pictures
from osediff_exp.tasks.train import build_data

register_resolvers()
CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ram(tmp_path_factory.mktemp("ram"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 3)


def configuration(weights: Path, cache: Path, *overrides: str) -> DictConfig:
    ram = ["prompt=ram", f"prompt.weights={weights}/ram_swin_large_14m.pth", "prompt.image_size=32", f"prompt.cache={cache}"]
    small = ["data.crop_size=32", "data.val_size=32", "data.num_workers=0", "trainer=debug", "degradation=bicubic", "tag.device=cpu"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["task=tag", *ram, *small, *overrides])


def folder(photos: Path) -> list[str]:
    return [f"data.root={photos}", f"data.val_root={photos}/1.png"]


@pytest.mark.parametrize("image", ["hq", "lq", "photo"])
def test_a_training_finds_everything_known(weights: Path, photos: Path, tmp_path: Path, image: str) -> None:
    config = configuration(weights, tmp_path / "cache", *folder(photos), f"prompt.train_image={image}", f"prompt.lora={weights}/DAPE.pth")
    figures = tag.run(config, tmp_path)
    # Two photos (the third is kept for validation) or four steps of two crops, by RAM; and the validation's picture, by DAPE.
    assert figures["tag_cache_misses"] == (3 if image == "photo" else 9)
    training = build_prompts(config)
    asked = BatchPrompts(training, train_image=image)
    data = build_data(config, tmp_path)
    data.setup("fit")
    batches = iter(data.train_dataloader())
    for _ in range(4):
        asked.training(next(batches))
    for batch in data.val_dataloader():
        asked.testing(batch)
    assert training.figures()["tag_cache_misses"] == 0
    assert isinstance(training, TaggedPrompt)
    assert len(training.cached_taggers) == 2
    assert all("tagger" not in vars(tagger) for tagger in training.cached_taggers)  # no network was even built


def test_a_call_again_does_what_is_left(weights: Path, photos: Path, tmp_path: Path) -> None:
    tag.run(configuration(weights, tmp_path / "cache", *folder(photos), "tag.samples=5"), tmp_path)
    figures = tag.run(configuration(weights, tmp_path / "cache", *folder(photos)), tmp_path)
    assert (figures["tag_cache_hits"], figures["tag_cache_misses"]) == (6, 3)


def test_the_samples_are_those_of_all_devices_and_updates(weights: Path, tmp_path: Path) -> None:
    trainer = ["trainer.max_steps=10", "trainer.batch_size=4", "trainer.devices=2", "trainer.accumulate=3", "trainer.critic_updates=2"]
    assert num_samples(configuration(weights, tmp_path, *trainer)) == 480
    assert num_samples(configuration(weights, tmp_path, "tag.samples=7")) == 7
    minutes = ["trainer.max_steps=${steps:40}", "trainer.budget_minutes=5"]
    assert num_samples(configuration(weights, tmp_path, "tag.samples=7", *minutes)) == 7
    with pytest.raises(UserError, match=r"trainer\.budget_minutes=5 does not say how many crops to tag: set tag\.samples"):
        num_samples(configuration(weights, tmp_path, *minutes))


def test_photos_become_a_sidecar_that_says_the_same(weights: Path, photos: Path, tmp_path: Path) -> None:
    config = configuration(weights, tmp_path / "cache", f"input={photos}", "prompt.threshold=0.3")
    figures = tag.run(config, tmp_path)
    assert figures["num_images"] == 3
    sidecar = SidecarPrompt(file=str(figures["output"]))
    extractor = build_prompts(config)
    files = [PhotoFile(photos / f"{k}.png") for k in range(3)]
    assert sidecar(torch.zeros(3, 3, 1, 1), ["0", "1", "2"]) == extractor.of_photos(files, like=torch.zeros(()))


def test_a_sidecar_of_photos_that_share_names_has_a_line_for_each_and_a_training_finds_it(weights: Path, tmp_path: Path) -> None:
    root, written = tmp_path / "photos", tmp_path / "tags.csv"
    for name in ("a", "b"):
        write_photos(root / name, 2)
    (root / "a" / "1.png").rename(root / "a" / "bird.jpg.png")
    config = configuration(weights, tmp_path / "cache", f"input={root}", f"output={written}", f"data.root={root}")
    tag.run(config, tmp_path)
    called = [line.partition(",")[0] for line in written.read_text().splitlines()]
    assert called == ["name", "a/0.png", "a/bird.jpg.png", "b/0.png", "b/1.png"]
    written.write_text("name,tags\n" + "".join(f"{name},told of {name}\n" for name in called[1:]))
    sidecar = SidecarPrompt(file=str(written))
    data = build_data(config, tmp_path)
    data.setup("fit")
    sidecar.expect(*data.named_files())
    assert data.train_pairs is not None
    samples = [data.train_pairs[i] for i in range(12)]
    batch = {"hq": torch.stack([sample["hq"] for sample in samples])}
    batch |= {key: [sample[key] for sample in samples] for key in ("name", "path")}
    assert BatchPrompts(sidecar).training(batch) == [f"told of {Path(path).relative_to(root)}" for path in batch["path"]]
    assert {"0", "bird.jpg"} < set(batch["name"])


def test_a_photo_that_cannot_be_read_is_named_and_the_others_are_tagged(weights: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:200])
    with pytest.raises(Incomplete, match=r"1 photos cannot be read, .*1\.png") as caught:
        tag.run(configuration(weights, tmp_path / "cache", f"input={photos}"), tmp_path)
    assert caught.value.figures["tag_cache_misses"] == 2


@pytest.mark.parametrize("suffix", ["npz", "npy", "pt"])
def test_any_tensor_goes_through_the_network_as_it_is(weights: Path, tmp_path: Path, suffix: str) -> None:
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    file = tmp_path / f"x.{suffix}"
    if suffix == "pt":
        torch.save(x, file)
    else:
        (np.savez if suffix == "npz" else np.save)(file, x.numpy())
    figures = tag.run(configuration(weights, tmp_path, f"input={file}", f"output={tmp_path}/out.npz", "tag.batch_size=2"), tmp_path)
    with torch.inference_mode():
        expected = build_ram(random_weights(), image_size=32)(x)
    found = np.load(tmp_path / "out.npz")
    assert np.allclose(found["logits"], expected.logits, atol=1e-5)
    assert np.allclose(found["image_embeds"], expected.image_embeds, atol=1e-5)
    assert (figures["num_images"], figures["num_tags"]) == (3, len(TAGS))


def test_lora_beside_the_weights_is_merged_and_no_tag_list_is_needed(weights: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.pth"
    alone.write_bytes((weights / "ram_swin_large_14m.pth").read_bytes())
    np.save(tmp_path / "x.npy", np.ones((3, 32, 32), np.float32))
    logits = []
    for lora in ("null", f"{weights}/DAPE.pth"):
        config = configuration(weights, tmp_path, f"prompt.weights={alone}", f"prompt.lora={lora}", f"input={tmp_path}/x.npy")
        logits.append(tag.run(config, tmp_path)["logits_mean"])
    assert logits[0] != pytest.approx(logits[1], abs=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prompt=fixed"], r"nothing to tag with this prompt \(it tags no pictures\)"),
        (["prompt.words=none"], r"nothing to tag with this prompt \(its words are constant\)"),
        (["tag.batch_size=0"], r"tag\.batch_size=0"),
        (["tag.samples=-1"], r"tag\.samples=-1"),
    ],
)
def test_what_cannot_be_tagged_is_one_clear_line(weights: Path, photos: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    prompt = [text for text in overrides if text.startswith("prompt=")]
    if prompt:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", ["task=tag", *prompt, *folder(photos)])
    else:
        config = configuration(weights, tmp_path, *folder(photos), *overrides)
    with pytest.raises(UserError, match=message):
        tag.run(config, tmp_path)


def test_a_tensor_without_pictures_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 5)))
    with pytest.raises(UserError, match=r"holds no tensor \(B, 3, H, W\)"):
        read_pictures(tmp_path / "x.npy")
    (tmp_path / "y.npy").write_text("nothing")
    with pytest.raises(UserError, match=r"y\.npy cannot be read"):
        read_pictures(tmp_path / "y.npy")


def test_missing_weights_are_found_missing_before_anything_starts(weights: Path, photos: Path, tmp_path: Path) -> None:
    config = configuration(weights, tmp_path, *folder(photos), "prompt.lora=DAPE_of_mine.pth")
    with pytest.raises(UserError, match=r"prompt\.lora=DAPE_of_mine\.pth is not in"):
        check_inputs(config)
    config.prompt.words = "fixed"
    check_inputs(config)
    assert isinstance(build_prompts(config), FixedPrompt)
