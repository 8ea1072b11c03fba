"""What every kind of checkpoint becomes when it is loaded, and what exporting one reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from osediff_exp.checkpoints.build import build_backbone, build_generator, prompts_maker
from osediff_exp.checkpoints.fitting import HINT, check_fingerprint, fill
from osediff_exp.checkpoints.versions import FORMAT, versions
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator import OneStepGenerator
from osediff_exp.models.generator_base import Generator
from osediff_exp.models.prompts import PromptExtractor

Format = Literal["osediff_exp", "released", "lora", "merged", "weights"]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a checkpoint restores with.

    Attributes:
        backbone: frozen; the generator is a view of it.
        generator: in evaluation mode, with the checkpoint's weights; its trainable tensors keep ``requires_grad``.
        make_prompts: makes the run's prompt extractor; see :attr:`prompts`.
        config: the configuration as plain data; at least ``backbone.loader``, ``generator`` and ``prompt.extractor``.
        steps: optimizer steps behind the weights; 0 where the file does not tell.
        format: the kind of checkpoint.
        fingerprint: of the backbone, see :meth:`Backbone.fingerprint`.
    """

    backbone: Backbone
    generator: Generator
    make_prompts: Callable[[], PromptExtractor]
    config: dict[str, Any]
    steps: int
    format: Format
    fingerprint: str

    @cached_property
    def prompts(self) -> PromptExtractor:
        """The run's prompt extractor, made when it is asked for: who only takes the weights needs none of its files.

        Raises:
            UserError: a file that it reads is not there, or it does not take the configuration's arguments.
        """
        return self.make_prompts()

    def record(self, kind: Format) -> dict[str, Any]:
        """Return what an exported folder of ``kind`` says of itself: plain data for ``osediff.json``."""
        return {
            "format": FORMAT,
            "kind": kind,
            "steps": self.steps,
            "max_sampling_steps": self.generator.max_steps,
            "backbone": {"fingerprint": self.fingerprint, "source": self.backbone.source},
            "versions": versions(),
            "config": {name: self.config[name] for name in ("backbone", "generator", "prompt")},
        }

    def one_step_generator(self, kind: Format) -> OneStepGenerator:
        """Return the generator; UserError where it is none that an export of ``kind`` can hold."""
        if not isinstance(self.generator, OneStepGenerator):
            kept = type(self.generator).__name__
            raise UserError(f"format={kind} holds OSEDiff's one-step generator only, and this is a {kept}: use format=weights")
        if self.format == "merged" and kind != "merged":
            raise UserError(f"the LoRA of a merged folder cannot be taken out again: export format={kind} from the original checkpoint")
        return self.generator


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Number of tensors and of parameters in an export, and the fingerprint of the backbone that it restores on."""

    num_tensors: int
    params: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the present call says, which no checkpoint may say for it.

    Attributes:
        backbone: used in place of loading one; must be the checkpoint's.
        sources: where the backbone is looked for, in place of the configuration's ``backbone.loader.sources``.
        packages: names of packages or modules beside this one whose generators and prompt extractors may be built: their code is run.
        prompt: a prompt's configuration (``extractor``, ``words``, ...) in place of the checkpoint's own.
    """

    backbone: Backbone | None = None
    sources: list[str] | None = None
    packages: tuple[str, ...] = ()
    prompt: Mapping[str, Any] | None = None


def assemble(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | Callable[[Generator], Mapping[str, Tensor]],
    *,
    trained_on: Mapping[str, Any] | None,
    call: Call,
    steps: int,
    format: Format,
    hint: str = HINT,
) -> Loaded:
    """Build what ``config`` describes and fill the generator's trainable ``tensors``.

    Args:
        tensors: by the generator's names, or what returns them once the generator is there.
        trained_on: ``fingerprint`` and ``source`` of the checkpoint's backbone; None where the file does not tell.
        hint: what to do about tensors that do not fit.

    Raises:
        UserError: if backbone, configuration and tensors do not belong together; nothing is loaded by halves.
    """
    if call.prompt is not None:
        config = {**config, "prompt": dict(call.prompt)}
        _check_image_features(config)
    make_prompts = prompts_maker(config, packages=call.packages)
    backbone = call.backbone or build_backbone(config, sources=call.sources)
    fingerprint = backbone.fingerprint()
    if trained_on is not None:
        check_fingerprint(trained_on, backbone, fingerprint)
    generator = build_generator(config, backbone, packages=call.packages)
    fill(generator, tensors(generator) if callable(tensors) else tensors, hint=hint)
    return Loaded(
        backbone=backbone,
        generator=generator,
        make_prompts=make_prompts,
        config=dict(config),
        steps=steps,
        format=format,
        fingerprint=fingerprint,
    )


def _check_image_features(config: Mapping[str, Any]) -> None:
    """Raise UserError where the prompts do not give the image features that the generator was trained to attend to."""
    wanted = config.get("generator", {}).get("image_embeds_shape")
    given = config["prompt"].get("image_embeds_shape")
    if wanted is not None and (given is None or list(given) != list(wanted)):
        raise UserError(
            f"the checkpoint's generator attends to image features of shape {list(wanted)}, and these prompts give "
            f"{'none' if given is None else list(given)}: choose the source of its training (prompt.words=none leaves out its words alone)"
        )
