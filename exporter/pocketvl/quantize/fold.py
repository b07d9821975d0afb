"""Fold LayerNorms, pixel normalisation and other factors into adjacent weights, linears of a constant away.

One converter does this by itself, for some of them, and the other does not; done here, before anything is
quantized, both engines get the same weights, and int8 takes pixels as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from pocketvl.families.layers.bert import adds_and_normalizes
from pocketvl.families.layers.compression import shape_of
from pocketvl.families.layers.plain import Constant, NormalizePixels, RawPixels
from pocketvl.families.layers.pooled import PoolsOnePosition
from pocketvl.observe.calibrate import is_pointwise

_NORM = torch.ops.aten.layer_norm.default
_LINEAR = torch.ops.aten.linear.default
_ADD = torch.ops.aten.add.Tensor
_CONVOLUTION = torch.ops.aten.conv2d.default
_CHOICES = (torch.ops.aten.select.int, torch.ops.aten.slice.Tensor)
_SCALES = ("scale", "scaling")  # of an attention, CLIP's kin and BERT's: by what it multiplies its scores
_QUERIES = ("q_proj", "query")
_QUICK_GELU = 1.702
_LAYER_SCALE = ("layer_scale_parameter", "pwconv2")  # of a ConvNeXt's layer: the scale, the linear before it


@dataclass(frozen=True)
class NormReaders:
    """A LayerNorm that nothing but linears reads, which read nothing else: its channels are theirs alone.

    Or a convolution that nothing but pointwise convolutions reads. Or a LayerNorm after a sum, as BERT's,
    which is also what the next sum adds to.

    Attributes:
        norm: its name in the module.
        linears: names of the linears, each once, in the order in which they are computed.
        sums: names of the modules that add a linear's output to what the LayerNorm gives, and normalise it.
    """

    norm: str
    linears: tuple[str, ...]
    sums: tuple[str, ...] = ()


def norm_readers(
    module: nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]
) -> tuple[NormReaders, ...]:
    """The LayerNorms of which channels can be scaled, if what reads them is scaled against it.

    Linears and sums may read some positions alone. Left out are LayerNorms that are read by anything else or
    normalise more than the last axis, and those with a linear whose weights are used elsewhere or belong to
    another module too.

    Args:
        module: in eval mode; left as it is.
        example: its input, or a tuple of its inputs.
    """
    return _norm_readers(_exported(module, example), module)


def _norm_readers(program: ExportedProgram, module: nn.Module) -> tuple[NormReaders, ...]:
    names = program.graph_signature.inputs_to_parameters
    outputs: dict[str, list[fx.Node]] = {}  # of each LayerNorm, one of each call
    for node in program.graph.nodes:
        norm = _owner(node.args[2], names) if node.target is _NORM and len(node.args) > 2 else None
        if norm is not None:
            outputs.setdefault(norm, []).append(node)
    found = []
    for norm, calls in outputs.items():
        child = module.get_submodule(norm)
        given = _with_chosen(calls)
        users = [user for each in given for user in each.users if user not in given]
        linears = [_reader(user, given, names, module) for user in users]
        sums = [_sum_of(user, given, names, module) for user in users]
        whole = isinstance(child, nn.LayerNorm) and len(child.normalized_shape) == 1
        known = all(linear or sum_ for linear, sum_ in zip(linears, sums, strict=True))
        if whole and _owners(module, "weight", child.weight) == 1 and any(linears) and known:
            found.append(NormReaders(norm, _names(linears), _names(sums)))
    return tuple(found)


def _with_chosen(calls: list[fx.Node]) -> list[fx.Node]:
    """Outputs of a LayerNorm and what is chosen of their positions, with all channels."""
    found = [*calls]
    for node in found:  # which grows meanwhile
        found += [user for user in node.users if user.target in _CHOICES and not _chooses_channels(user)]
    return found


def _chooses_channels(choice: fx.Node) -> bool:
    chosen_from = choice.args[0]
    assert isinstance(chosen_from, fx.Node)
    rank = chosen_from.meta["val"].ndim
    axis = choice.args[1] if len(choice.args) > 1 else 0
    return axis in (-1, rank - 1)


def _names(found: Iterable[str | None]) -> tuple[str, ...]:
    """Each once, in their order."""
    return tuple(dict.fromkeys(name for name in found if name))


def _sum_of(user: fx.Node, calls: list[fx.Node], names: dict[str, str], module: nn.Module) -> str | None:
    """The sum of BERT's that a use of a LayerNorm's output belongs to; None if it is anything else's."""
    after = list(user.users)
    if user.target is not _ADD or len(after) != 1 or after[0].target is not _NORM:
        return None
    norm = _owner(after[0].args[2], names) if len(after[0].args) > 2 else None
    owner = (norm or "").rpartition(".")[0]
    if not owner or not adds_and_normalizes(module.get_submodule(owner)):
        return None
    return owner if sum(each in calls for each in user.args) == 1 else None


def convolution_readers(
    module: nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]
) -> tuple[NormReaders, ...]:
    """The convolutions that nothing but pointwise convolutions read, so that channels can be scaled.

    Left out are those of which weights are used elsewhere.

    Args:
        module: in eval mode; left as it is.
        example: its input, or a tuple of its inputs.
    """
    if not any(map(is_pointwise, module.modules())):
        return ()
    program = _exported(module, example)
    names = program.graph_signature.inputs_to_parameters
    calls = [node for node in program.graph.nodes if node.target is _CONVOLUTION]
    owners = {node: _owner(node.args[1], names) for node in calls}
    known = [owner for owner in owners.values() if owner is not None]
    once = {
        owner
        for owner in known
        if known.count(owner) == _owners(module, "weight", module.get_submodule(owner).weight) == 1
    }
    found = []
    for node in calls:
        readers = [owners.get(user) if user.args[0] is node else None for user in node.users]
        pointwise = [name for name in readers if name in once and is_pointwise(module.get_submodule(name))]
        if owners[node] in once and readers and len(pointwise) == len(readers):
            found.append(NormReaders(str(owners[node]), tuple(pointwise)))
    return tuple(found)


def fold_(module: nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[str, ...]:
    """Fold LayerNorms that only linears read, pixel normalisation, constant factors, linears of a constant.

    Constant factors are a ConvNeXt's layer scales, by what attentions of CLIP, SigLIP and BERT scale scores,
    and what QuickGELU multiplies the input of its sigmoid by.

    A last layer of which one position is read is computed for that alone. The module computes the same as
    before. A linear without a bias gets one; of two that stand for one of a
    lower rank the second takes it, so that the first stays without: a converter would move it there.

    Args:
        module: in eval mode. Of a component, the model whose modules it shares is of no other use then.
        example: its input, or a tuple of its inputs.

    Returns:
        Names of the LayerNorms that scale by 1 and shift by 0 now.
    """
    _pool_early_(module)
    program = _exported(module, example)
    _fold_pixels_(program, module)
    _fold_layer_scales_(module)
    _fold_score_scales_(module)
    _fold_quick_gelus_(module)
    found = [readers for readers in _norm_readers(program, module) if not readers.sums]
    for readers in found:
        norm = module.get_submodule(readers.norm)
        assert isinstance(norm, nn.LayerNorm)
        for name in readers.linears:
            _fold_(norm, module, name)
        _reset_(norm)
    _fold_constants_(program, module, example if isinstance(example, tuple) else (example,))
    return tuple(readers.norm for readers in found)


def load_folded_(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Give a component that is not folded the structure and the weights of one that was.

    Args:
        module: as its family builds it, with any weights; changed in place.
        state: of the folded component.
    """
    _pool_early_(module)
    for name, child in [*module.named_modules()]:
        if isinstance(child, NormalizePixels) and f"{name}.factor" not in state:
            module.set_submodule(name, RawPixels())
        elif f"{name}.value" in state and isinstance(child, nn.Linear):
            module.set_submodule(name, Constant(torch.empty_like(state[f"{name}.value"])))
        elif hasattr(child, _LAYER_SCALE[0]) and f"{name}.{_LAYER_SCALE[0]}" not in state:
            setattr(child, _LAYER_SCALE[0], None)
    for attention, scale in _scaling_attentions(module):
        setattr(attention, scale, 1.0)
    for layer in _quick_gelu_layers(module):
        layer.activation_fn = nn.SiLU()
    for name, value in state.items():
        parent, _, last = name.rpartition(".")
        if last == "bias" and module.get_submodule(parent).bias is None:  # a shift came into it
            module.get_submodule(parent).bias = nn.Parameter(torch.empty_like(value), requires_grad=False)
    module.load_state_dict(state)


def _pool_early_(module: nn.Module) -> None:
    if isinstance(module, PoolsOnePosition):
        module.pool_early_()


def _exported(module: nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]) -> ExportedProgram:
    return torch.export.export(module, example if isinstance(example, tuple) else (example,))


def _fold_pixels_(program: ExportedProgram, module: nn.Module) -> None:
    """Move pixel normalisation into the convolution that reads it, where nothing else does."""
    parameters = program.graph_signature.inputs_to_parameters
    buffers = program.graph_signature.inputs_to_buffers
    for name, child in [*module.named_modules()]:
        if not isinstance(child, NormalizePixels):
            continue
        shifts = [key for key, buffer in buffers.items() if buffer == f"{name}.shift"]
        calls = [
            node for node in program.graph.nodes if any(each.name in shifts for each in node.all_input_nodes)
        ]
        users = [user for call in calls for user in call.users]
        owners = {_owner(user.args[1], parameters) if user.target is _CONVOLUTION else None for user in users}
        owner = owners.pop() if len(owners) == 1 else None
        convolution = module.get_submodule(owner) if owner is not None else None
        if not isinstance(convolution, nn.Conv2d) or _owners(module, "weight", convolution.weight) > 1:
            continue
        # padding is of normalised pixels: where a colour's mean is not black, it stands for no pixel's 0
        if all(side == 0 for side in convolution.padding) or not any(child.mean):
            _fold_normalization_(child, convolution)
            module.set_submodule(name, RawPixels())


def _fold_normalization_(normalize: NormalizePixels, convolution: nn.Conv2d) -> None:
    """Make a convolution of normalised pixels the same convolution of pixels 0 to 255."""
    weight = convolution.weight.detach().double()  # [width, 3, P, P]
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (normalize.mean, normalize.std))
    bias = -(weight * (mean / std)).sum(dim=(1, 2, 3))
    if convolution.bias is not None:
        bias = bias + convolution.bias.detach().double()
    with torch.no_grad():
        convolution.weight.copy_(weight * (normalize.rescale / std))
    convolution.bias = nn.Parameter(bias.to(convolution.weight.dtype), requires_grad=False)


def _fold_layer_scales_(module: nn.Module) -> None:
    """Move what a ConvNeXt's layers scale their outputs by into the linears that give them."""
    name, linear = _LAYER_SCALE
    for layer in module.modules():
        scale = getattr(layer, name, None)
        if isinstance(scale, nn.Parameter):
            last = layer.get_submodule(linear)
            assert isinstance(last, nn.Linear)
            with torch.no_grad():
                last.weight.mul_(scale[:, None])
                last.bias.mul_(scale)
            setattr(layer, name, None)


def _scaling_attentions(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The attentions of a module that multiply their scores by an attribute, and its name."""
    for child in module.modules():
        for name in _SCALES:
            if isinstance(getattr(child, name, None), float) and any(hasattr(child, q) for q in _QUERIES):
                yield child, name


def _fold_score_scales_(module: nn.Module) -> None:
    """Scale queries by their weights: scores are many more numbers, above all of a long sequence."""
    for attention, scale in _scaling_attentions(module):
        (query,) = (name for name in _QUERIES if hasattr(attention, name))
        _scale_(attention.get_submodule(query), getattr(attention, scale))
        setattr(attention, scale, 1.0)


def _quick_gelu_layers(module: nn.Module) -> Iterator[nn.Module]:
    from transformers.activations import QuickGELUActivation

    for child in module.modules():
        if isinstance(getattr(child, "activation_fn", None), QuickGELUActivation) and hasattr(child, "fc2"):
            yield child


def _fold_quick_gelus_(module: nn.Module) -> None:
    """x * sigmoid(1.702 x) as y * sigmoid(y) / 1.702 of y = 1.702 x, by the linears around it."""
    for layer in _quick_gelu_layers(module):
        _scale_(layer.get_submodule("fc1"), _QUICK_GELU)
        second = _factors(layer.get_submodule("fc2"))[0]
        with torch.no_grad():
            second.weight.div_(_QUICK_GELU)
        layer.activation_fn = nn.SiLU()


def _scale_(linear: nn.Module, factor: float) -> None:
    """Multiply what a linear gives, or two that stand for one."""
    last = _factors(linear)[-1]
    with torch.no_grad():
        last.weight.mul_(factor)
        if last.bias is not None:
            last.bias.mul_(factor)


def _factors(linear: nn.Module) -> list[nn.Linear]:
    """The linear itself, or those that stand for it."""
    return [child for child in linear.modules() if isinstance(child, nn.Linear)]


def _fold_constants_(program: ExportedProgram, module: nn.Module, example: tuple[torch.Tensor, ...]) -> None:
    """Put what a linear gives in its place, where it reads nothing that comes in: a query that is learned."""
    parameters, varying = program.graph_signature.inputs_to_parameters, {*program.graph_signature.user_inputs}
    constant: dict[str, torch.Tensor] = {}
    for node in program.graph.nodes:
        if any(each.name in varying for each in node.all_input_nodes):
            varying.add(node.name)
        name = _owner(node.args[1], parameters) if node.target is _LINEAR else None
        if name is not None and node.args[0].name not in varying:
            constant[name] = torch.empty(0)
    for name in constant:
        layer = module.get_submodule(name)
        if isinstance(layer, nn.Linear) and _owners(module, "weight", layer.weight) == 1:
            with layer.register_forward_hook(partial(_keep, constant, name)), torch.no_grad():
                module(*example)
            module.set_submodule(name, Constant(constant[name][:1].clone()))


def _keep(found: dict[str, torch.Tensor], name: str, _: nn.Module, __: object, output: torch.Tensor) -> None:
    found[name] = output


def _reader(user: fx.Node, calls: list[fx.Node], names: dict[str, str], module: nn.Module) -> str | None:
    """The linear that a use of a LayerNorm's output is a call of; None if it is anything else's."""
    if not _reads(user, calls):
        return None
    name = _owner(user.args[1], names)
    linear = module.get_submodule(name) if name is not None else None
    if not isinstance(linear, nn.Linear) or _owners(module, "weight", linear.weight) > 1:
        return None
    bias = _parameter(user.args[2], names) if len(user.args) > 2 else None
    if bias != (None if linear.bias is None else f"{name}.bias"):
        return None  # the weights are used past their module
    weight = user.args[1]
    assert isinstance(weight, fx.Node)
    return name if all(_reads(other, calls) for other in weight.users) else None


def _reads(user: fx.Node, calls: list[fx.Node]) -> bool:
    """Whether a node is a linear layer of the output of one of the calls."""
    return user.target is _LINEAR and user.args[0] in calls and user.args[1] not in calls


def _owners(module: nn.Module, attribute: str, parameter: object) -> int:
    return sum(getattr(child, attribute, None) is parameter for child in module.modules())


def _parameter(argument: object, names: dict[str, str]) -> str | None:
    return names.get(argument.name) if isinstance(argument, fx.Node) else None


def _owner(argument: object, names: dict[str, str]) -> str | None:
    """The module whose weight an argument is."""
    name = _parameter(argument, names)
    return name.removesuffix(".weight") if name is not None and name.endswith(".weight") else None


def _fold_(norm: nn.LayerNorm, module: nn.Module, name: str) -> None:
    """Move a LayerNorm's scale and shift into one of its readers; the LayerNorm itself is left as it is."""
    linear = module.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        scale = norm.weight.double()
        shift = torch.zeros_like(scale) if norm.bias is None else norm.bias.double()
        weight = linear.weight.double()
        second = _second_factor(module, name)
        if second is None:
            _add_bias_(linear, weight @ shift)
        else:
            _add_bias_(second, second.weight.double() @ (weight @ shift))
        linear.weight.copy_(weight * scale)


def _second_factor(module: nn.Module, name: str) -> nn.Linear | None:
    """Of a linear that is the first of two that stand for one: the other."""
    parent = module.get_submodule(name.rpartition(".")[0])
    shape = shape_of(parent)
    if shape is None or shape.rank is None:
        return None
    second = parent.get_submodule("1")
    return second if isinstance(second, nn.Linear) and name.endswith(".0") else None


def _add_bias_(linear: nn.Linear, bias: torch.Tensor) -> None:
    if linear.bias is not None:
        bias = bias + linear.bias.double()
    linear.bias = nn.Parameter(bias.to(linear.weight.dtype), requires_grad=False)


def _reset_(norm: nn.LayerNorm) -> None:
    with torch.no_grad():
        norm.weight.fill_(1)
        if norm.bias is not None:
            norm.bias.fill_(0)
