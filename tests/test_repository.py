"""The repository's promises: what the README shows works, what exists is listed, what is pinned belongs together."""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.preflight import make_plan
from osediff_exp.losses.base import LossInputs, LossTerm
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.models.latents import encode_mode
from osediff_exp.tasks.methods import build_method

if TYPE_CHECKING:
    from collections.abc import Iterator

    from osediff_exp.models.backbone import Backbone

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULE = "osediff_exp.losses.charbonnier"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def snippet(comment: str) -> str:
    found = [block for language in ("python", "yaml") for block in blocks(language) if f"# {comment}" in block.splitlines()[:2]]
    assert len(found) == 1, f"the README shows {comment} {len(found)} times"
    return found[0]


@pytest.fixture
def charbonnier() -> Iterator[None]:
    """The README's module, importable."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    exec(compile(snippet("osediff_exp/losses/charbonnier.py"), "README.md", "exec"), module.__dict__)
    yield
    del sys.modules[MODULE]


@pytest.mark.usefixtures("charbonnier")
def test_the_readmes_loss_term_is_the_charbonnier_distance(tmp_path: Path) -> None:
    own = tmp_path / "loss" / "terms" / "charbonnier.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(snippet("conf/loss/terms/charbonnier.yaml"))
    overrides = ["loss/terms=[charbonnier,st_lpips,vsd]", f"hydra.searchpath=[{tmp_path}]"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides)
    assert list(config.loss.terms) == ["charbonnier", "st_lpips", "vsd"]
    term = instantiate(config.loss.terms.charbonnier)
    assert isinstance(term, LossTerm)
    assert term.weight == 1.0
    output, target = torch.full((2, 3, 4, 4), 0.3, requires_grad=True), torch.full((2, 3, 4, 4), -0.1)
    text = torch.zeros(2, 1, 1)
    inputs = LossInputs(output=output, target=target, latent=text, prompt_embeds=text, negative_embeds=text, seed=0, step=0, indices=[0, 1])
    loss = term(inputs).loss
    loss.backward()
    root = (0.4**2 + 1e-6) ** 0.5
    assert loss.item() == pytest.approx(root, rel=1e-6)
    assert output.grad is not None
    assert output.grad.sum().item() == pytest.approx(0.4 / root, rel=1e-5)


def test_the_readmes_method_trains_its_u_net_and_restores(tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("osediff_exp.methods.regression")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(snippet("osediff_exp/methods/regression.py"), "README.md", "exec"), module.__dict__)
    own = tmp_path / "method" / "regression.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(snippet("conf/method/regression.yaml"))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", ["method=regression", f"hydra.searchpath=[{tmp_path}]"])
    method = build_method(config, backbone)
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    text = backbone.encode_prompts(["sharp photo"])
    no_embed = lambda prompts: text  # noqa: E731
    batch = TrainingBatch(
        lq=picture, hq=picture.flip(-1), prompt_embeds=text, negative_embeds=text, embed=no_embed, seed=0, step=0, indices=[0]
    )
    loss, logs = method.loss(batch)
    loss.backward()
    assert {name.partition(".")[0] for name, weight in method.generator.named_parameters() if weight.grad is not None} == {"unet"}
    assert method.groups()["generator"].parameters == list(method.generator.unet.parameters())
    error = method.generator(picture, text).latent - encode_mode(backbone.vae, batch.hq)
    assert logs["train/loss"].item() == pytest.approx(error.square().mean().item(), rel=1e-5)


def commands() -> list[list[str]]:
    lines = [
        line for block in blocks("bash") for line in block.replace("\\\n", "").splitlines() if line.startswith("python -m osediff_exp")
    ]
    return [shlex.split(line, comments=True)[3:] for line in lines]


def test_the_readme_shows_commands() -> None:
    assert len(commands()) >= 6


@pytest.mark.parametrize("argv", commands(), ids=" ".join)
def test_every_command_of_the_readme_passes_the_checks(argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LSDIR", "FFHQ", "photos", "val", "RealSR/test_LR", "RealSR/test_HR", "RUN", "restored", "originals"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "photo.png")
    for name in ("ram_swin_large_14m.pth", "DAPE.pth", "x.npz"):
        (tmp_path / name).touch()
    first_arm = [re.sub(r"^([\w./]+=[^,\[{]+),.*", r"\1", text.replace("/data/", f"{tmp_path}/")) for text in argv]  # all arms take seconds
    arguments = parse_arguments([*own_term(tmp_path, monkeypatch), *first_arm])
    if not arguments.help:
        make_plan(ROOT / "conf", arguments)


def own_term(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put the README's own term outside the repository, as it says; return the arguments that find it."""
    (folder / "code").mkdir()
    (folder / "code" / "readme_terms.py").write_text(blocks("python")[0])
    (folder / "conf" / "loss" / "terms").mkdir(parents=True)
    option = blocks("yaml")[0].replace("osediff_exp.losses.charbonnier.", "readme_terms.")
    (folder / "conf" / "loss" / "terms" / "charbonnier.yaml").write_text(option)
    monkeypatch.syspath_prepend(folder / "code")
    return ["--config-dir", str(folder / "conf"), "packages=[readme_terms]"]


@pytest.mark.parametrize("group", ["loss/terms", "method", "degradation", "experiment", "prompt"])
def test_every_option_is_in_the_readmes_tables(group: str) -> None:
    names = {path.stem for path in (ROOT / "conf" / group).glob("[!_]*.yaml")}
    listed = set(re.findall(r"^\| `(\w+)`", README, flags=re.MULTILINE))
    assert names - listed == set()


def test_every_metric_and_task_is_in_the_readme() -> None:
    metrics = {name for path in (ROOT / "conf" / "metrics").glob("*.yaml") for name in yaml.safe_load(path.read_text())} - {"defaults"}
    tasks = {path.stem for path in (ROOT / "conf" / "task").glob("*.yaml")}
    tree = re.search(r"^  tasks/ +([\w, ]+):", README, flags=re.MULTILINE)
    assert tree is not None
    assert {name for name in metrics if f"| `{name}` |" not in README} == set()
    assert set(tree[1].split(", ")) == tasks


def test_every_class_and_link_of_the_readme_exists() -> None:
    for module, name in re.findall(r"`((?:losses|methods|degradations|metrics)\.[\w.]+)\.(\w+)`", README):
        source = (ROOT / "osediff_exp" / Path(*module.split("."))).with_suffix(".py")
        assert f"class {name}(" in source.read_text(), f"{module}.{name}"
    links = {link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link}
    assert {link for link in links if not (ROOT / link).exists()} == set()


def test_decisions_are_numbered_without_gaps() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert page.read_text().startswith(f"# {int(page.name[:4])}. ")
        assert "Status:" in page.read_text()


def test_make_explains_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    explained = re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE)
    assert sorted(explained) == sorted(phony[1].split())


def test_continuous_integration_runs_the_developers_commands() -> None:
    script = ROOT / ".ci" / "run"
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert lines == ["make test", "make lint types"]
    assert script.stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_constraints_pin_torch_and_torchvision_together(name: str) -> None:
    text = (ROOT / "constraints" / f"{name}.txt").read_text()
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)", text, flags=re.MULTILINE))
    torch_minor, vision_minor = int(pins["torch"].split(".")[1]), int(pins["torchvision"].split(".")[1])
    assert vision_minor == torch_minor + 15  # torchvision 0.(n + 15) is built for torch 2.n


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def install(folder: Path, python: Path, *, has_gpu: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the installation on a pretended Linux machine, with or without a GPU, into ``folder/venv``."""
    program(folder / "bin" / "nvidia-smi", f"exit {int(not has_gpu)}")
    program(folder / "bin" / "uname", "echo Linux")
    environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "VENV": str(folder / "venv"), "PYTHON": str(python)}
    return subprocess.run([str(ROOT / "tools" / "install.sh")], env=environment, capture_output=True, text=True, timeout=20, check=False)


def recorder(folder: Path, refuse: str) -> Path:
    """An environment whose Python writes down what it is asked to install, and cannot install what matches ``refuse``."""
    log = folder / "asked"
    return program(
        folder / "venv" / "bin" / "python",
        f'case "$*" in *" install "*) echo "$*" >> {log};; esac\ncase "$*" in {refuse}) exit 1;; *) exit 0;; esac',
    )


@pytest.mark.parametrize(
    ("has_gpu", "refuse", "asked"),
    [
        (True, "nothing", ["-m pip install --quiet --constraint constraints/gpu.txt --editable ."]),
        (
            False,
            "nothing",
            ["-m pip install --quiet torch==2.13.0+cpu", "-m pip install --quiet --constraint constraints/cpu.txt --editable ."],
        ),
        (
            False,
            "*+cpu",
            [
                "-m pip install --quiet torch==2.13.0+cpu",
                "-m pip install --quiet uv",
                "-m uv pip install --quiet --python {python} --torch-backend=cpu torch==2.13.0",
                "-m pip install --quiet --constraint constraints/cpu.txt --editable .",
            ],
        ),
    ],
)
def test_without_a_gpu_torch_is_a_cpu_build(tmp_path: Path, has_gpu: bool, refuse: str, asked: list[str]) -> None:
    python = recorder(tmp_path, refuse)
    done = install(tmp_path, python, has_gpu=has_gpu)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "asked").read_text().splitlines() == [line.format(python=python) for line in asked]
    assert (tmp_path / "venv" / ".installed-run").is_file()
    assert not (tmp_path / "venv" / ".installed-dev").exists()


def test_without_any_cpu_build_the_installation_stops_in_one_line(tmp_path: Path) -> None:
    done = install(tmp_path, recorder(tmp_path, "*torch==*"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: no CPU build of torch 2.13.0 can be had")
    assert len(done.stderr.splitlines()) == 1
    assert "--editable" not in (tmp_path / "asked").read_text()


def test_the_installation_refuses_an_old_python_in_one_line(tmp_path: Path) -> None:
    old = program(tmp_path / "python-old", '[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1')
    done = install(tmp_path, old)
    assert done.returncode == 1
    assert done.stderr == f"error: {old} is Python 3.9.2, the project needs 3.11 or newer: name another interpreter with PYTHON=\n"
    assert not (tmp_path / "venv").exists()


def test_the_installation_names_a_missing_python(tmp_path: Path) -> None:
    done = install(tmp_path, tmp_path / "nowhere")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere" in done.stderr
