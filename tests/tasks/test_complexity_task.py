"""task=complexity: the figures it reports and the tables it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.tasks import complexity

register_resolvers()
CONF = Path(__file__).parents[2] / "conf"


def configuration(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["task=complexity", *overrides])


@pytest.mark.slow
def test_sd21_beside_the_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = complexity.run(configuration("backbone=sd21"), tmp_path)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["params_total"] == 1_294_377_495
    assert figures["params_trainable"] == 8_492_620  # the paper's 8.5 M
    assert (figures["params_generator_trainable"], figures["params_score_trainable"]) == (4_436_908, 4_055_712)
    assert figures["macs_g"] == pytest.approx(2253.9, abs=0.05)
    parts = ("vae_encoder", "unet", "vae_decoder", "text_encoder")
    assert sum(figures[f"macs_g_{part}"] for part in (*parts, "lora")) == pytest.approx(figures["macs_g"])  # type: ignore[misc]
    assert sum(figures[f"macs_g_{part}"] for part in parts) == pytest.approx(figures["macs_g_merged"])  # type: ignore[misc]
    assert figures["macs_g_products"] == pytest.approx(104.1, abs=0.05)  # of 2,240
    page, printed = (tmp_path / "complexity.md").read_text(), capsys.readouterr().out
    for text in (page, printed):
        assert all(part in text for part in ("2,265", "2,253.9", "865,910,724", "SeeSR", "480.6 M more"))
    assert "| OSEDiff | 1 | 2,265 | 1,775 | 8.5 |" in page
    assert "| this project | 1 | 2,253.9 | 1,294.4 | 8.49 |" in page


@pytest.mark.parametrize(
    ("method", "part"), [("stablesr", "structure encoder"), pytest.param("pasd", "control net", marks=pytest.mark.slow)]
)
def test_what_a_method_adds_is_a_line_and_the_lines_add_up(tmp_path: Path, method: str, part: str) -> None:
    figures = complexity.run(configuration("backbone=tiny", f"method={method}", "complexity.size=64"), tmp_path)
    lines = [line.strip("| ").split(" | ") for line in (tmp_path / "complexity.md").read_text().splitlines() if line.startswith("|")]
    names = [line[0] for line in lines]
    assert part in names
    table = lines[names.index("VAE encoder") : names.index("these, LoRA merged")]
    assert sum(int(line[1].replace(",", "")) for line in table) == figures["params_total"]
    assert sum(float(line[3].replace(",", "")) for line in table) == pytest.approx(figures["macs_g"], rel=2e-2)
    assert 0 < figures["macs_g_products"] < figures["macs_g_merged"]  # type: ignore[operator]


@pytest.mark.slow
def test_the_rank_and_the_terms_are_the_configurations(tmp_path: Path) -> None:
    figures = complexity.run(configuration("backbone=tiny", "complexity.size=64"), tmp_path)
    halved = complexity.run(configuration("backbone=tiny", "complexity.size=64", "generator.unet_rank=8", "lambda2=0"), tmp_path)
    assert halved["params_lora_unet"] == figures["params_lora_unet"] / 2  # type: ignore[operator]
    assert halved["params_lora_vae_encoder"] == figures["params_lora_vae_encoder"]
    assert halved["params_score_trainable"] == 0
    assert figures["params_score_trainable"] == figures["params_lora_unet"]
    assert halved["params_trainable"] == halved["params_generator_trainable"]
    assert halved["macs_g_merged"] == figures["macs_g_merged"]
    assert "more than these networks have" not in (tmp_path / "complexity.md").read_text()  # another backbone than the paper's
