"""Samples with another sample beside them: for prompts that are true of another picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

if TYPE_CHECKING:
    from osediff_exp.data.pairs import Sample


class WithOther(Dataset["Sample"]):
    """Sample i with the entry ``other``: another sample of the same set, a function of i.

    In an endless stream (``length`` None) neighbours change places, 0 with 1, 2 with 3, ...: prompts are shuffled, each is used once. In a
    set of n, picture k gets picture k + 1, the last one the first.

    Args:
        samples: anything with ``samples[i]``.
        length: how many there are; None: no end.
    """

    def __init__(self, samples: Any, *, length: int | None = None) -> None:
        self.samples, self.length = samples, length

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("the stream has no end")
        return self.length

    def __getitem__(self, i: int) -> Sample:
        other = i ^ 1 if self.length is None else (i + 1) % self.length
        return {**self.samples[i], "other": self.samples[other]}
