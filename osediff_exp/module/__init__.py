"""The LightningModule and its parts: what a step sums up, how optimizers step, what is logged, how a validation is scored."""

from osediff_exp.module.restoration_module import RestorationModule
from osediff_exp.module.scores import check_validation_share

__all__ = ["RestorationModule", "check_validation_share"]
