"""A component together with the hidden states and attention maps of some of its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from pocketvl.errors import RecipeError
from pocketvl.families.layers.plain import first_output


class Features(NamedTuple):
    """A component's outputs, hidden states and attention maps for a batch.

    Attributes:
        output: float32 [B, ...].
        hidden: of the layers that were asked for, float32 [B, T, width] each.
        attention: of the attentions that were asked for, their maps' mean over the heads, float32 [B, T, T].
    """

    output: torch.Tensor
    hidden: tuple[torch.Tensor, ...] = ()
    attention: tuple[torch.Tensor, ...] = ()


class FeatureExtractor(nn.Module):
    """Runs a component and collects the outputs of some of its layers and the maps of some attentions.

    Where a student's layers are narrower or wider than its teacher's, `projections` bring them to the
    teacher's width; they are of no use after training (Romero et al., 2015, "FitNets", arXiv 1412.6550).
    """

    def __init__(
        self,
        component: nn.Module,
        layers: Sequence[str] = (),
        attentions: Sequence[str] = (),
        project: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Register the hooks.

        Args:
            component: what runs.
            layers: names of its layers, whose outputs are hidden states.
            attentions: names of its attentions; they have to be eager, since others give no maps.
            project: from which width to which, for each of the layers; none where widths agree.
        """
        super().__init__()
        self.component = component
        self.projections = nn.ModuleList(
            nn.Identity() if narrow == wide else nn.Linear(narrow, wide, bias=False)
            for narrow, wide in project
        )
        self._attentions = tuple(attentions)
        self._hidden: dict[int, torch.Tensor] = {}
        self._maps: dict[str, torch.Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for index, name in enumerate(layers):
            layer = component.get_submodule(name)
            self._handles.append(layer.register_forward_hook(self._keep_hidden(index)))
        for name in attentions:
            self._handles += self._map_hooks(name, component.get_submodule(name))

    def close(self) -> None:
        """Remove the hooks; the component is as it was."""
        for handle in self._handles:
            handle.remove()
        self._hidden.clear()
        self._maps.clear()

    def forward(self, *inputs: torch.Tensor) -> Features:
        """Run the component on a batch.

        Raises:
            RecipeError: an attention that was asked for gives no map.
        """
        self._hidden.clear()
        self._maps.clear()
        output = first_output(self.component(*inputs))
        hidden = tuple(self._hidden[index] for index in sorted(self._hidden))
        if len(self.projections):
            hidden = tuple(each(value) for each, value in zip(self.projections, hidden, strict=True))
        for name in self._attentions:
            if name not in self._maps:
                raise RecipeError(
                    f"losses.attention: {name} gives no attention map: it is split, or not eager"
                )
        return Features(output, hidden, tuple(self._maps[name] for name in self._attentions))

    def _keep_hidden(self, index: int) -> Callable[..., None]:
        def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._hidden[index] = (output[0] if isinstance(output, tuple) else output).float()

        return after

    def _map_hooks(self, name: str, attention: nn.Module) -> list[RemovableHandle]:
        """Maps [B, heads, T, T] are an attention's second output, or else what goes through its dropout."""

        def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, tuple) and len(output) > 1 and isinstance(output[1], torch.Tensor):
                self._maps[name] = output[1].float().mean(1)

        def before(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self._maps[name] = inputs[0].float().mean(1)

        handles = [attention.register_forward_hook(after)]
        dropout = getattr(attention, "dropout", None)
        if isinstance(dropout, nn.Dropout):
            handles.append(dropout.register_forward_pre_hook(before))
        return handles
