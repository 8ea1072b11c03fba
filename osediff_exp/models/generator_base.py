"""The contract of a generator: from a low-quality picture to a restored one, in however many steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.models.light_decoder import LightDecoder
from osediff_exp.models.tiling import Tiling

PARTS: Mapping[str, tuple[str, ...]] = {
    "vae_encoder": ("vae.encoder", "vae.quant_conv"),
    "unet": ("unet",),
    "vae_decoder": ("vae.decoder", "vae.post_quant_conv"),
}
"""Parts of a generator and the modules they are made of; what lies in none of them is the part ``other``."""

Noise = Callable[[str, tuple[int, ...]], Tensor]
"""``noise(purpose, shape)`` returns standard normal (B, *shape): a row for each sample of the batch, reproducible for the purpose."""


@dataclass(frozen=True)
class GeneratorOutput:
    """What a generator makes of a batch.

    Attributes:
        image: x_hat (B, 3, H, W) in [-1, 1].
        latent: z_hat (B, C, h, w), scaled, from which it was decoded.
        reference: the pictures, as ``image``, whose colours it should have (DiffBIR's cleaned ones); None: the low-quality ones.
    """

    image: Tensor
    latent: Tensor
    reference: Tensor | None = None


@dataclass(frozen=True)
class Context:
    """What a generator may be told beside picture and prompt; whoever calls fills in what it asks for.

    Attributes:
        negative_embeds: text features of the negative prompt, (B, L, D), for ``wants_negative``.
        image_embeds: a tagger's features of the low-quality picture, (B, N, E), for ``wants_image_embeds``.
    """

    negative_embeds: Tensor | None = None
    image_embeds: Tensor | None = None


NOTHING = Context()


class Generator(nn.Module, ABC):
    """What is trained to restore. The call does not promise one step: a sampler or a control network fits behind it.

    Attributes:
        tiling: None runs the networks on whole pictures (training); otherwise they see tiles, ``lq`` may lie on the CPU whatever the
            networks' device, the output's image is on the CPU, and no gradient flows (docs/adr/0010).
        takes_bytes: with tiling, ``lq`` may also be uint8, a quarter of the memory: it is touched by ``tiled_encode`` alone.
        light_decoder: decodes in the VAE's place, see :meth:`use_light_decoder`.
        draws_noise: restoring takes random numbers: the call needs ``noise``.
        wants_negative, wants_image_embeds: which parts of the context it needs.
        image_embeds_shape: (N, E) of those features.
        max_steps: as many can be asked for; sweeps over steps leave out more, from what ``result.json`` and exports say of it.
        steps, guidance: as it samples now; guidance 1 is none.
        on_step: called with (steps done, steps) while it samples.
        parts: names of the parts that parameters and MACs are counted by, and the modules each is made of; the rest is ``other``.
    """

    tiling: Tiling | None = None
    takes_bytes: bool = False
    light_decoder: LightDecoder | None = None
    draws_noise: bool = False
    wants_negative: bool = False
    wants_image_embeds: bool = False
    image_embeds_shape: tuple[int, int] = (0, 0)
    max_steps: int = 1
    steps: int = 1
    guidance: float = 1.0
    on_step: Callable[[int, int], None] | None = None
    parts: Mapping[str, tuple[str, ...]] = PARTS

    @abstractmethod
    def forward(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise | None = None, context: Context = NOTHING) -> GeneratorOutput:
        """Restore ``lq`` (B, 3, H, W) in [-1, 1], already at output size.

        Args:
            lq: low-quality pictures; see :attr:`takes_bytes`.
            prompt_embeds: text features (B, L, D).
            noise: of a sampler; where :attr:`draws_noise` is false, the call without it is deterministic.
            context: see :class:`Context`.
        """

    def set_sampling(self, *, steps: int | None = None, guidance: float | None = None) -> None:
        """Sample from now on in so many steps, with so much guidance; None leaves it as it is.

        Raises:
            UserError: it takes one step without guidance, whatever it is asked.
        """
        for key, value, own in (("steps", steps, self.steps), ("guidance", guidance, self.guidance)):
            if value is not None and value != own:
                raise UserError(f"{key}={value} is not possible: {type(self).__name__} samples with {key}={own} only; set {key}=null")

    @contextmanager
    def sampling_in_at_most(self, steps: int | None) -> Iterator[int]:
        """Sample in at most ``steps`` steps for a while (None: as before), and yield in how many."""
        own = self.steps
        self.set_sampling(steps=own if steps is None else min(own, steps))
        try:
            yield self.steps
        finally:
            self.set_sampling(steps=own)

    def use_light_decoder(self, decoder: LightDecoder | None) -> None:
        """Decode with ``decoder`` from now on, None: with the VAE's own.

        Raises:
            UserError: the decoder of this generator was trained, and another one would leave out what it learnt.
        """
        if decoder is not None and any(name.startswith(self.parts["vae_decoder"]) for name in self.own_tensors()):
            raise UserError("decoder: this checkpoint trained its own decoder, which a light one would leave out: set decoder=null")
        self.light_decoder = decoder

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return each trainable parameter once."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def own_tensors(self) -> dict[str, nn.Parameter]:
        """Return by name what a checkpoint holds: all that is not the backbone's. Here that is what trains.

        A generator with a frozen part that an earlier stage trained adds that part.
        """
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
