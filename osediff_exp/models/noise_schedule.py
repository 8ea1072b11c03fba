"""The noise schedule of a backbone, read from a diffusers scheduler configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn

from osediff_exp.diffusion import PredictionType, TimestepTable, beta_schedule, cumulative_alphas
from osediff_exp.errors import UserError


class NoiseSchedule(nn.Module):
    """abar_t for t = 0..num_steps-1 and what the U-Net predicts. Kept in float64: casting the model must not round it."""

    def __init__(self, *, beta_start: float, beta_end: float, schedule: str, num_steps: int, prediction_type: PredictionType) -> None:
        super().__init__()
        self.beta_start, self.beta_end, self.schedule, self.num_steps = beta_start, beta_end, schedule, num_steps
        self.prediction_type: PredictionType = prediction_type
        self._abar = TimestepTable(cumulative_alphas(beta_schedule(schedule, start=beta_start, end=beta_end, num_steps=num_steps)))

    @classmethod
    def from_config(cls, config: dict[str, Any], *, prediction_type: PredictionType | None = None) -> Self:
        """Read a diffusers ``scheduler_config.json``; ``prediction_type`` overrides the file's.

        Raises:
            UserError: if the schedule or the prediction type is not supported.
        """
        chosen = prediction_type or config.get("prediction_type", "epsilon")
        if chosen not in get_args(PredictionType):
            raise UserError(f"prediction type '{chosen}' is not supported: set backbone.loader.prediction_type to epsilon or v_prediction")
        if config.get("rescale_betas_zero_snr") or config.get("trained_betas") is not None:
            raise UserError("the scheduler's rescale_betas_zero_snr and trained_betas are not supported: take a backbone without them")
        try:
            return cls(
                beta_start=config["beta_start"],
                beta_end=config["beta_end"],
                schedule=config["beta_schedule"],
                num_steps=config.get("num_train_timesteps", 1000),
                prediction_type=chosen,
            )
        except KeyError as error:
            raise UserError(
                f"the backbone's scheduler_config.json has no {error}: take a backbone whose scheduler names its betas"
            ) from error
        except ValueError as error:
            raise UserError(f"the backbone's scheduler_config.json cannot be used: {error}") from error

    def abar(self, t: int | Tensor) -> Tensor:
        """Return abar_t in float64: a scalar for an integer, (B,) for timesteps (B,), see :class:`~osediff_exp.diffusion.TimestepTable`."""
        return self._abar[t]

    def save(self, folder: Path) -> None:
        """Write ``scheduler_config.json`` as diffusers' DDPMScheduler reads it."""
        config = {
            "_class_name": "DDPMScheduler",
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": self.schedule,
            "num_train_timesteps": self.num_steps,
            "prediction_type": self.prediction_type,
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n")

    @property
    def terminal_gain(self) -> float:
        """1 / alpha_T at the last timestep: 14.65 for Stable Diffusion."""
        return float(torch.rsqrt(self._abar.values[-1]))
