"""A tower that shows, beside its embedding, what it thought on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn


class Seen(NamedTuple):
    """What a tower made of a batch.

    Attributes:
        embedding: float32 [B, D].
        hidden: of the layers that were asked for, float32 [B, T, width] each.
        attention: of the attentions that were asked for, their maps' mean over the heads, float32 [B, T, T].
    """

    embedding: torch.Tensor
    hidden: tuple[torch.Tensor, ...] = ()
    attention: tuple[torch.Tensor, ...] = ()


class WatchedTower(nn.Module):
    """Runs a tower and collects what some of its layers and attentions give.

    Where a student's layers are narrower or wider than its teacher's, `project` brings them to the teacher's
    width; what it has learned is of no use afterwards (Romero et al., 2015, "FitNets", arXiv 1412.6550).
    """

    def __init__(
        self,
        tower: nn.Module,
        layers: Sequence[str] = (),
        attentions: Sequence[str] = (),
        project: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Builds it.

        Args:
            tower: what runs.
            layers: names of its layers, whose outputs are hidden states.
            attentions: names of its attentions; they have to be eager, since others give no maps.
            project: from which width to which, for each of the layers; none where widths agree.
        """
        super().__init__()
        self.tower = tower
        self.projections = nn.ModuleList(
            nn.Identity() if narrow == wide else nn.Linear(narrow, wide, bias=False)
            for narrow, wide in project
        )
        self._hidden: dict[int, torch.Tensor] = {}
        self._maps: dict[int, torch.Tensor] = {}
        self._handles = [
            *(
                tower.get_submodule(name).register_forward_hook(self._keep_hidden(place))
                for place, name in enumerate(layers)
            ),
            *(
                tower.get_submodule(name).register_forward_hook(self._keep_map(place))
                for place, name in enumerate(attentions)
            ),
        ]

    def close(self) -> None:
        """Stops watching; the tower is as it was."""
        for handle in self._handles:
            handle.remove()
        self._hidden.clear()
        self._maps.clear()

    def forward(self, inputs: torch.Tensor) -> Seen:
        """Embeds a batch."""
        self._hidden.clear()
        self._maps.clear()
        embedding = self.tower(inputs)
        hidden = tuple(self._hidden[place] for place in sorted(self._hidden))
        if len(self.projections):
            hidden = tuple(each(value) for each, value in zip(self.projections, hidden, strict=True))
        return Seen(embedding, hidden, tuple(self._maps[place] for place in sorted(self._maps)))

    def _keep_hidden(self, place: int) -> Any:
        def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._hidden[place] = (output[0] if isinstance(output, tuple) else output).float()

        return after

    def _keep_map(self, place: int) -> Any:
        def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._maps[place] = output[1].float().mean(1)

        return after
