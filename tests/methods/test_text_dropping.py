"""Who loses the words is handed in; the others keep theirs whole."""

from __future__ import annotations

import torch

from osediff_exp.methods.text_dropping import drop_text


def test_those_named_are_told_nothing_and_the_others_what_they_were() -> None:
    embeds, empty = torch.randn(3, 4, 2, requires_grad=True), torch.zeros(1, 4, 2)
    kept = drop_text(embeds, empty, dropped=torch.tensor([False, True, False]))
    assert torch.equal(kept[0], embeds[0])
    assert torch.equal(kept[1], empty[0])
    assert torch.equal(kept[2], embeds[2])
    kept.sum().backward()
    assert embeds.grad is not None
    assert embeds.grad.sum(dim=(1, 2)).tolist() == [8, 0, 8]
