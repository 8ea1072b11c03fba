"""What people say about a comparison: the ``report`` part of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ReportSettings:
    """Title, question, names and yardsticks of a comparison; what is empty is made from the sweep.

    Attributes:
        title, question: printed at the top.
        labels: override ("lambda2=0") -> what people call the arm.
        baseline: label of the row that every arm is tested against; empty: the first arm. "bicubic" is allowed.
        published: arm label -> row of ``data/paper_ablations.csv`` ("T3/VSD in latent space"), or a mapping metric key -> figure
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
            labels={str(key): str(value) for key, value in labels.items()},
            baseline=str(node.get("baseline") or ""),
            published={str(key): value for key, value in published.items() if value},
        )

    def or_else(self, other: ReportSettings) -> ReportSettings:
        """Return these settings with what is empty taken from ``other``."""
        return ReportSettings(**{item.name: getattr(self, item.name) or getattr(other, item.name) for item in fields(self)})
