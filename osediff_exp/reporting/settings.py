"""What people say about a comparison: the ``report`` part of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from osediff_exp.reporting.labels import flatten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class ReportSettings:
    """Title, question, names and yardsticks of a comparison; what is empty is made from the sweep.

    Attributes:
        title, question: printed at the top.
        labels: override ("lambda2=0") -> what people call the arm, or key ("generator.timestep") -> what people call the setting.
        baseline: label of the row that every arm is tested against; empty: the first arm. "bicubic" is allowed.
        published: arm label -> row of the paper's tables ("T3/VSD in latent space", "T1/RealSR/SeeSR"), or a mapping metric key -> figure
            with an optional "source".
    """

    title: str = ""
    question: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    baseline: str = ""
    published: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Any) -> ReportSettings:
        """Read the ``report`` part of a config (plain dicts); what is absent or null stays empty."""
        node = node if isinstance(node, dict) else {}
        labels, published = (value if isinstance(value := node.get(key), dict) else {} for key in ("labels", "published"))
        return cls(
            title=str(node.get("title") or ""),
            question=str(node.get("question") or ""),
            labels={key: str(value) for key, value in flatten(labels).items()},  # a key typed with dots arrives nested
            baseline=str(node.get("baseline") or ""),
            published={str(key): value for key, value in published.items() if value},
        )

    @classmethod
    def shared(cls, several: Sequence[ReportSettings]) -> ReportSettings:
        """Return what one report of several sweeps may say: all their names, and the texts in which they agree."""
        if len(several) == 1:
            return several[0]
        texts = {key: {getattr(one, key) for one in several} for key in ("title", "question", "baseline")}
        texts["baseline"] -= {""}  # a sweep without a baseline of its own has none against another's
        return cls(
            **{key: next(iter(values)) if len(values) == 1 else "" for key, values in texts.items()},
            labels={key: value for one in reversed(several) for key, value in one.labels.items()},
            published={key: value for one in reversed(several) for key, value in one.published.items()},
        )

    def or_else(self, other: ReportSettings) -> ReportSettings:
        """Return these settings with what is empty taken from ``other``."""
        return ReportSettings(**{item.name: getattr(self, item.name) or getattr(other, item.name) for item in fields(self)})
