"""The parts of a transformer that can shrink: feed-forward layers and attentions, by their linears."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

_FEED_FORWARDS = (
    ("mlp.fc1", "mlp.fc2"),  # CLIP, SigLIP
    ("intermediate.dense", "output.dense"),  # BERT, ViT, ViLT
)
# The module that holds queries, keys and values; their names in it; the projection after it.
_ATTENTIONS = (
    ("self_attn", ("q_proj", "k_proj", "v_proj"), "self_attn.out_proj"),  # CLIP, SigLIP
    ("attention", ("q_proj", "k_proj", "v_proj"), "attention.out_proj"),  # SigLIP's pooling head
    ("token_mixer", ("q_proj", "k_proj", "v_proj"), "token_mixer.out_proj"),  # FastViT, deployed
    ("attention.attention", ("query", "key", "value"), "attention.output.dense"),  # ViT, ViLT
    ("attention.self", ("query", "key", "value"), "attention.output.dense"),  # BERT
)
_HEAD_SIZES = ("head_dim", "attention_head_size")
_HEAD_COUNTS = ("num_heads", "num_attention_heads")


@dataclass(frozen=True)
class FeedForward:
    """hidden -> neurons -> hidden, with an activation in between that works on each neuron alone.

    Attributes:
        up: name of the linear whose outputs are the neurons.
        down: name of the linear whose inputs they are.
    """

    up: str
    down: str


@dataclass(frozen=True)
class Attention:
    """Queries, keys and values of some heads, and the linear that puts them together.

    Attributes:
        name: of the module that multiplies them.
        query: name of the linear.
        key: name of the linear.
        value: name of the linear.
        output: name of the linear.
        head_size: outputs of a query for one head.
    """

    name: str
    query: str
    key: str
    value: str
    output: str
    head_size: int

    @property
    def inward(self) -> tuple[str, str, str]:
        """The three linears whose outputs are divided among the heads."""
        return self.query, self.key, self.value


def feed_forwards(module: nn.Module) -> tuple[FeedForward, ...]:
    """The feed-forward layers of a module, in its order."""
    return tuple(
        FeedForward(_joined(prefix, up), _joined(prefix, down))
        for prefix, layer in module.named_modules()
        for up, down in _FEED_FORWARDS
        if _is_linear(layer, up) and _is_linear(layer, down)
    )


def attentions(module: nn.Module) -> tuple[Attention, ...]:
    """The attentions of a module, in its order."""
    return tuple(_attentions(module))


def set_head_count_(module: nn.Module, attention: Attention, heads: int) -> None:
    """Update an attention's head counts after its linears have shrunk."""
    owner = module.get_submodule(attention.name)
    for name in _HEAD_COUNTS:
        if hasattr(owner, name):
            setattr(owner, name, heads)
    if hasattr(owner, "all_head_size"):  # by which BERT and its kin put heads together
        setattr(owner, "all_head_size", heads * attention.head_size)  # noqa: B010 (no attribute of nn.Module)


def _attentions(module: nn.Module) -> Iterator[Attention]:
    for prefix, layer in module.named_modules():
        for inner, names, output in _ATTENTIONS:
            linears = [*(f"{inner}.{name}" for name in names), output]
            if all(_is_linear(layer, name) for name in linears):
                owner = layer.get_submodule(inner)
                sizes = [getattr(owner, name) for name in _HEAD_SIZES if hasattr(owner, name)]
                if sizes:
                    query, key, value, out = (_joined(prefix, name) for name in linears)
                    yield Attention(_joined(prefix, inner), query, key, value, out, int(sizes[0]))


def _is_linear(layer: nn.Module, name: str) -> bool:
    try:
        return isinstance(layer.get_submodule(name), nn.Linear)
    except AttributeError:
        return False


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
