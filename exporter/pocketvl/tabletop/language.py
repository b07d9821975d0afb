"""What can be said of a scene: true captions, captions made false by one change, questions and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import permutations
from typing import NamedTuple

import numpy as np

from pocketvl.tabletop.scene import (
    COLOURS,
    PATTERNS,
    SHAPES,
    SIZES,
    Look,
    Relation,
    Scene,
    clear_pairs,
    possibly_related,
)

NEGATIVES = 7
NUMBERS = ("zero", "one", "two", "three", "four", "five")
ANSWERS = (*COLOURS, *SHAPES, *NUMBERS, "yes", "no", *(r.value for r in Relation))


class Kind(StrEnum):
    """What was changed to make a caption false."""

    SHAPE = "shape"
    COLOUR = "colour"
    SIZE = "size"
    PATTERN = "pattern"
    BINDING = "binding"
    RELATION = "relation"


ATTRIBUTES = {Kind.SHAPE: SHAPES, Kind.COLOUR: COLOURS, Kind.SIZE: SIZES, Kind.PATTERN: PATTERNS}


class Statement(NamedTuple):
    """What a caption says: one thing, or a first thing in relation to a second."""

    first: Look
    second: Look | None = None
    relation: Relation | None = None


Template = Callable[[Statement], str]


def holds(statement: Statement, scene: Scene, mentioned: Sequence[Kind] = tuple(ATTRIBUTES)) -> bool:
    """Whether a generous observer could call the statement true of the scene.

    Args:
        statement: what is said.
        scene: what is there.
        mentioned: the attributes that the wording mentions; all others are not compared.
    """
    first, second, relation = statement
    if second is None or relation is None:
        return any(_alike(t.look, first, mentioned) for t in scene.things)
    return any(
        _alike(a.look, first, mentioned)
        and _alike(b.look, second, mentioned)
        and possibly_related(a, b, relation)
        for a, b in permutations(scene.things, 2)
    )


def _alike(look: Look, other: Look, mentioned: Sequence[Kind]) -> bool:
    return all(getattr(look, kind.value) == getattr(other, kind.value) for kind in mentioned)


def sample_statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """A true statement that tells the scene from others: both looks in full, and a clear relation."""
    if len(scene.things) == 1:
        return Statement(scene.things[0].look)
    pairs = list(clear_pairs(scene))
    first, second, relation = pairs[rng.integers(len(pairs))]
    return Statement(first.look, second.look, relation)


# --- negatives -------------------------------------------------------------------------------------------


def falsify(statement: Statement, kind: Kind, scene: Scene, rng: np.random.Generator) -> Statement | None:
    """The statement with one change of that kind, false of the scene; None where there is no such change."""
    candidates = [c for c in changes(statement, kind) if not holds(c, scene)]
    return candidates[rng.integers(len(candidates))] if candidates else None


def changes(statement: Statement, kind: Kind) -> list[Statement]:
    """Every statement that differs by one change of that kind, be it true or false."""
    first, second, relation = statement.first, statement.second, statement.relation
    if kind in ATTRIBUTES:
        changed = [statement._replace(first=look) for look in _with_other(first, kind)]
        if second is not None:
            changed += [statement._replace(second=look) for look in _with_other(second, kind)]
        return changed
    if second is None or relation is None:
        return []
    if kind is Kind.RELATION:
        return [statement._replace(relation=relation.reverse)]
    return [
        Statement(first._replace(**{name: b}), second._replace(**{name: a}), relation)
        for name in (k.value for k in ATTRIBUTES)
        if (a := getattr(first, name)) != (b := getattr(second, name))
    ]


def _with_other(look: Look, kind: Kind) -> list[Look]:
    return [look._replace(**{kind.value: v}) for v in ATTRIBUTES[kind] if v != getattr(look, kind.value)]


def hard_negatives(
    statement: Statement, scene: Scene, rng: np.random.Generator, count: int = NEGATIVES
) -> list[tuple[Kind, Statement]]:
    """Distinct false statements, one change away each; every kind that applies comes before any repeats."""
    found: list[tuple[Kind, Statement]] = []
    seen = {statement}
    while len(found) < count:
        kinds = [Kind(k) for k in rng.permutation([k.value for k in Kind])]
        before = len(found)
        for kind in kinds:
            changed = falsify(statement, kind, scene, rng)
            if changed is not None and changed not in seen and len(found) < count:
                seen.add(changed)
                found.append((kind, changed))
        if (
            len(found) == before and len(seen) > 40
        ):  # pragma: no cover - the vocabulary is far larger than that
            raise RuntimeError("the tabletop vocabulary ran out of hard negatives")
    return found


# --- words -----------------------------------------------------------------------------------------------

_OF = {Relation.LEFT: "left of", Relation.RIGHT: "right of", Relation.ABOVE: "above", Relation.BELOW: "below"}
_OF_LONG = {
    Relation.LEFT: "to the left of",
    Relation.RIGHT: "to the right of",
    Relation.ABOVE: "above",
    Relation.BELOW: "underneath",
}
_ITS = {
    Relation.LEFT: "on its left",
    Relation.RIGHT: "on its right",
    Relation.ABOVE: "above it",
    Relation.BELOW: "below it",
}


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def describe(look: Look) -> str:
    """All four attributes, in the order in which English puts them."""
    return _article(f"{look.size} {look.pattern} {look.colour} {look.shape}")


def _brief(look: Look) -> str:
    return _article(f"{look.colour} {look.shape}")


def canonical(statement: Statement) -> str:
    """The form of `captions[0]` and of its negatives."""
    if statement.second is None or statement.relation is None:
        return describe(statement.first)
    return f"{describe(statement.first)} {_OF[statement.relation]} {describe(statement.second)}"


def _photo(statement: Statement) -> str:
    if statement.second is None or statement.relation is None:
        return f"a photo of {describe(statement.first)}"
    return (
        f"a photo of {describe(statement.first)} {_OF_LONG[statement.relation]} {describe(statement.second)}"
    )


def _turned(statement: Statement) -> str:
    if statement.second is None or statement.relation is None:
        return f"{describe(statement.first)} on a table"
    return f"{describe(statement.second)} {_OF[statement.relation.reverse]} {describe(statement.first)}"


def _with_it(statement: Statement) -> str:
    if statement.second is None or statement.relation is None:
        return f"there is {describe(statement.first)}"
    return (
        f"there is {describe(statement.second)} with {describe(statement.first)} {_ITS[statement.relation]}"
    )


def _short(statement: Statement) -> str:
    if statement.second is None or statement.relation is None:
        return _brief(statement.first)
    return f"{_brief(statement.first)} {_OF[statement.relation]} {_brief(statement.second)}"


def _label(statement: Statement) -> str:
    return f"a photo of {_article(statement.first.shape)}"


class Form(NamedTuple):
    """A way to word a statement: what writes it, and the attributes that it mentions."""

    write: Template
    tells: tuple[Kind, ...]


FULL_FORMS = tuple(Form(t, tuple(ATTRIBUTES)) for t in (canonical, _photo, _turned, _with_it))
"""Forms that say everything, so that they tell a scene from others."""
SHORT_FORM = Form(_short, (Kind.SHAPE, Kind.COLOUR))
"""Leaves attributes out: true, but of many scenes."""
LABEL_FORM = Form(_label, (Kind.SHAPE,))
"""Names the shape of the first thing and nothing else, as the labels of a dataset do."""


def captions(statement: Statement) -> list[str]:
    """The statement in all forms, the canonical one first, without repeats."""
    forms = (*FULL_FORMS, SHORT_FORM, LABEL_FORM)
    return list(dict.fromkeys(form.write(statement) for form in forms))


# --- questions -------------------------------------------------------------------------------------------


def questions(scene: Scene, rng: np.random.Generator) -> list[dict[str, str]]:
    """One question of every type that the scene allows; each has one right answer out of `ANSWERS`."""
    looks = [t.look for t in scene.things]
    asked = [
        _ask_unique(looks, rng, known="shape", wanted="colour", text="what colour is the {}?"),
        _ask_unique(looks, rng, known="colour", wanted="shape", text="what shape is the {} object?"),
        _ask_count(looks, rng),
        _ask_existence(looks, rng),
        _ask_relation(scene, rng),
    ]
    return [qa for qa in asked if qa is not None]


def _qa(question: str, answer: str, kind: str) -> dict[str, str]:
    return {"question": question, "answer": answer, "type": kind}


def _ask_unique(
    looks: list[Look], rng: np.random.Generator, known: str, wanted: str, text: str
) -> dict[str, str] | None:
    times = Counter(getattr(look, known) for look in looks)
    unique = [look for look in looks if times[getattr(look, known)] == 1]
    if not unique:
        return None
    look = unique[rng.integers(len(unique))]
    return _qa(text.format(getattr(look, known)), getattr(look, wanted), wanted)


def _ask_count(looks: list[Look], rng: np.random.Generator) -> dict[str, str]:
    if rng.random() < 0.5:
        return _qa("how many objects are there?", NUMBERS[len(looks)], "count")
    colour = COLOURS[rng.integers(len(COLOURS))] if rng.random() < 0.3 else looks[0].colour
    return _qa(
        f"how many {colour} objects are there?", NUMBERS[sum(k.colour == colour for k in looks)], "count"
    )


def _ask_existence(looks: list[Look], rng: np.random.Generator) -> dict[str, str]:
    look = looks[rng.integers(len(looks))]
    if rng.random() < 0.5:
        kind = Kind.COLOUR if rng.random() < 0.5 else Kind.SHAPE
        others = _with_other(look, kind)
        look = others[rng.integers(len(others))]
    there = any((k.shape, k.colour) == (look.shape, look.colour) for k in looks)
    return _qa(f"is there {_brief(look)}?", "yes" if there else "no", "existence")


def _ask_relation(scene: Scene, rng: np.random.Generator) -> dict[str, str] | None:
    pairs = list(clear_pairs(scene))
    if not pairs:
        return None
    first, second, relation = pairs[rng.integers(len(pairs))]
    question = (
        f"where is the {first.look.colour} {first.look.shape}, "
        f"seen from the {second.look.colour} {second.look.shape}?"
    )
    return _qa(question, relation.value, "relation")
