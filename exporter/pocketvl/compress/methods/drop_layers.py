"""Dropping whole layers of a transformer.

Source: block influence, Men et al., 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than
You Expect" (arXiv 2403.03853), section 3: a layer whose output points where its input did changes little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pocketvl.errors import DataError, RecipeError
from pocketvl.settings import Layers
from pocketvl.train.method import CompressionMethod, MethodInputs, check_components, no_stack

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint


@dataclass(frozen=True)
class DropLayers(CompressionMethod):
    """Removes the layers that change their hidden states least.

    Attributes:
        keep: how many layers each component keeps; those that are not named keep all.
    """

    kind: ClassVar[str] = "drop-layers"
    version: ClassVar[int] = 1
    renamed: ClassVar[Mapping[str, str]] = {
        "image": "keep.image_encoder, as in keep = { image_encoder = 6 }",
        "text": "keep.text_encoder, as in keep = { text_encoder = 6 }",
        "fusion": "keep.fusion, as in keep = { fusion = 6 }",
    }

    keep: Mapping[str, Layers] = field(hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.keep:
            raise RecipeError("keep: say how many layers to keep, as in keep = { image_encoder = 6 }")

    @classmethod
    def obstacle(cls, checkpoint: Checkpoint, component: str) -> str | None:
        return no_stack(checkpoint, component)

    def title(self, fraction: float) -> str:
        return "drop layers"

    def check(self, components: Sequence[str]) -> None:
        check_components(tuple(self.keep), components)

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        from torch import nn

        from pocketvl.families.folders.hf import update_section_
        from pocketvl.observe.feeds import feeds_of, tensors_of

        done: dict[str, object] = {}
        for name, count in self.keep.items():
            stack = checkpoint.stack(name)
            layers = checkpoint.model.get_submodule(stack.name)
            assert isinstance(layers, nn.ModuleList)
            if count > len(layers):
                raise RecipeError(f"{stack.name} has {len(layers)} layers; {count} of them cannot stay")
            feeds = (tensors_of(feed) for feed in feeds_of(checkpoint, inputs.data, name))
            influence = layer_influence(checkpoint.component(name).module, layers, feeds)
            keep = sorted(influence.argsort(descending=True, stable=True)[:count].tolist())
            drop_layers_(checkpoint.model, stack.name, keep)
            section, key = stack.config
            update_section_(checkpoint.config, section, {key: count})
            done[stack.name] = {"influence": influence.tolist(), "kept": keep}
        return done


def layer_influence(
    module: nn.Module, layers: nn.ModuleList, feeds: Iterable[tuple[torch.Tensor, ...]]
) -> torch.Tensor:
    """Block influence: 1 - the mean cosine of a layer's input and its output, over samples and positions.

    Args:
        module: in eval mode; runs the layers.
        layers: hidden states in, hidden states out.
        feeds: inputs of the module.

    Returns:
        float64 [layers].

    Raises:
        DataError: there are no samples.
    """
    import torch
    import torch.nn.functional as F

    sums = torch.zeros(len(layers), dtype=torch.float64)
    count = 0

    def watch(index: int) -> Any:
        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            found = output[0] if isinstance(output, tuple) else output
            sums[index] += F.cosine_similarity(before.double(), found.double(), dim=-1).mean(-1).sum()

        return after

    with ExitStack() as stack, torch.no_grad():
        for index, layer in enumerate(layers):
            stack.callback(layer.register_forward_hook(watch(index), with_kwargs=True).remove)
        for feed in feeds:
            module(*feed)
            count += len(feed[0])
    if count == 0:
        raise DataError("no samples to measure the layers' influence on")
    return 1 - sums / count


def drop_layers_(owner: nn.Module, name: str, keep: Sequence[int]) -> None:
    """Remove all layers except those to keep.

    Args:
        owner: holds the layers; changed in place.
        name: of its ModuleList.
        keep: indices of the layers to keep, ascending.

    Raises:
        RecipeError: none would be left, or there is no such layer.
    """
    from torch import nn

    from pocketvl.compress.shrink import check_keep

    layers = owner.get_submodule(name)
    assert isinstance(layers, nn.ModuleList)
    check_keep(keep, len(layers), f"layers of {name}")
    owner.set_submodule(name, nn.ModuleList(layers[index] for index in keep))
