"""Base class of settings: frozen dataclasses with checked fields, and constrained number types.

A field's type says which values it can have, once, for recipes (`recipes/toml.py`) and for Python alike.
Types are strict: no text is taken for a number and no number for true or false, but an int may stand for a
float; no float is NaN or infinite.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pocketvl.errors import RecipeError
from pocketvl_runtime.errors import quoted

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Count = Annotated[int, Field(ge=0, lt=2**31)]
"""0 or more: steps, negatives."""
Size = Annotated[int, Field(ge=1, lt=2**31)]
"""At least 1: samples of a batch, units that stay."""
Rounds = Annotated[int, Field(ge=1, le=1000)]
"""How often a step is done; each round is a stage or more."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Of random numbers; numpy's global ones take 32 bits."""
Width = Annotated[int, Field(ge=1, le=2**16)]
"""Of hidden states, embeddings or feed-forward layers; heads of an attention; channels."""
Layers = Annotated[int, Field(ge=1, le=2**10)]
"""Of a component."""
Pixels = Annotated[int, Field(ge=1, le=2**13)]
"""The side of a picture or of a patch; the runtime reads no larger pictures."""
Positive = Annotated[float, Field(gt=0)]
"""Above 0: learning rates, temperatures, targets."""
Weight = Annotated[float, Field(ge=0)]
"""0 or more: of a loss, of AdamW's decay, of what a step moves."""
Share = Annotated[float, Field(gt=0, lt=1)]
"""Above 0 and below 1: a part that goes, where some has to stay."""


class Settings:
    """Base of all dataclasses of settings; a subclass with a `__post_init__` of its own calls this one first.

    Raises:
        RecipeError: a field has a value that its type does not allow; the message names the field.
    """

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        kind: Any = type(self)
        names, adapter = _fields(kind)
        try:
            adapter.validate_python(tuple(getattr(self, name) for name in names))
        except ValidationError as error:
            (index, *inner), reason = first_error(error)
            raise RecipeError(f"{key_path([names[int(index)], *inner])}: {reason}") from error


def first_error(error: ValidationError) -> tuple[list[str | int], str]:
    """Where the first thing that is wrong stands, and what it is, in one short line; unknown keys first."""
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "unexpected_keyword_argument"), errors[0])
    if first["type"] == "unexpected_keyword_argument":
        reason = "there is no such key"
    elif first["type"] == "missing":
        reason = first["msg"]
    else:
        reason = f"{first['msg']}, not {quoted(first['input'])}"
    return list(first["loc"]), reason


def key_path(parts: Sequence[str | int]) -> str:
    """Keys and indices, joined by points; a key that TOML would put into quotes is quoted."""
    plain = (str(part).replace("_", "").replace("-", "") for part in parts)
    return ".".join(
        str(part) if name.isascii() and name.isalnum() and len(name) <= 60 else quoted(part)
        for part, name in zip(parts, plain, strict=True)
    )


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, ...], TypeAdapter[Any]]:
    """The names of a dataclass's fields, and what checks the tuple of their values."""
    hints = get_type_hints(kind, include_extras=True)
    names = tuple(each.name for each in dataclasses.fields(kind))
    values: Any = tuple[tuple(hints[name] for name in names)]  # type: ignore[misc]
    return names, TypeAdapter(values, config=_STRICT)
