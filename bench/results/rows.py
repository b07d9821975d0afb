"""What is measured: every method alone at two ratios, methods together, ways to teach a student, recipes.

A row is a compression recipe, whose steps are measured once without any learning and once with it. To measure
a model of another kind, add a `Teacher` with its `Kind`, a judge of that kind in judging.py, and a function
beside `dual_encoder_rows` that `all_rows` adds up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from pocketvl.compress.methods.drop_layers import DropLayers
from pocketvl.compress.methods.low_rank import LowRank
from pocketvl.compress.methods.prune_cross_modal import PruneCrossModal
from pocketvl.compress.methods.prune_filters import PruneFilters
from pocketvl.compress.methods.prune_units import PruneUnits
from pocketvl.compress.methods.reinitialize import Reinitialize
from pocketvl.compress.methods.sparsify import Sparsify
from pocketvl.compress.settings import BlockScore, Schedule, Scope, Score, Units
from pocketvl.families.component_shape import ComponentShape
from pocketvl.quantize.qat_method import QuantizationAwareTraining
from pocketvl.quantize.settings import QatSettings
from pocketvl.recipes.compress_recipe import CompressRecipe, Step, read_compress_recipe
from pocketvl.tasks.metrics import Metric
from pocketvl.train.method import CompressionMethod
from pocketvl.train.settings import LossWeights, Phase, TrainingSettings
from pocketvl.train.settings import Precision as Floats
from pocketvl_runtime.manifest import Precision
from pocketvl_runtime.schema import encode

RECIPE_CURVE = "recipes"
LABELS = LossWeights(response=0.0, embedding=0.0, contrast=1.0)
ROUNDS = 3
BATCH = 64
FUSION_STUDENT_STEPS = 250
FUSION_QAT_STEPS = 100
CROSS_MODAL_COMPARED = 60  # at this share, blocks are chosen by the other scores too


@dataclass(frozen=True)
class Budget:
    """Training steps of a row: of the image tower, of the text tower, of both together.

    A row that learns from labels takes them all with both towers together, since a tower by itself learns
    nothing from labels.
    """

    image: int = 48
    text: int = 36
    joint: int = 16

    def learning(
        self, losses: LossWeights | None = None, rounds: int = 1, rate: float = 3e-4
    ) -> TrainingSettings:
        """How a row learns.

        Args:
            losses: default: response and embedding.
            rounds: trainings that share the budget.
            rate: the learning rate.
        """
        weights = losses or LossWeights()
        image, text, joint = (max(1, steps // rounds) for steps in (self.image, self.text, self.joint))
        alone = (Phase(image, ("image_encoder",)), Phase(text, ("text_encoder",)))
        phases = (*alone, Phase(joint)) if weights.of_components else (Phase(image + text + joint),)
        return TrainingSettings(
            phases,
            batch_size=BATCH,
            learning_rate=rate,
            losses=weights,
            precision=Floats.BFLOAT16,
        )


class Kind(StrEnum):
    """How a model is asked."""

    DUAL_ENCODER = "dual-encoder"
    ANSWERING = "answering"


@dataclass(frozen=True)
class Teacher:
    """A model that rows make smaller.

    Attributes:
        name: in the tables.
        checkpoint: its folder.
        kind: how it, and what becomes of it, is asked.
        metrics: what is shown of it; the first is drawn.
        exported: whether its rows become graph files, whose bytes, answers and latency are measured.
    """

    name: str
    checkpoint: Path
    kind: Kind = Kind.DUAL_ENCODER
    metrics: tuple[Metric, ...] = (Metric.MATCH_HARD, Metric.RETRIEVAL_R1)
    exported: bool = True


TABLETOP_CLIP = Teacher("tabletop-clip-teacher", Path("checkpoints/tabletop-clip-teacher"))
TABLETOP_STUDENT = Teacher("tabletop-clip", Path("checkpoints/tabletop-clip"))
TABLETOP_CONVNEXT = Teacher("tabletop-convnext", Path("checkpoints/tabletop-convnext"))
TABLETOP_VILT = Teacher("tabletop-vilt", Path("checkpoints/tabletop-vilt"), Kind.ANSWERING, (Metric.ASK,))


@dataclass(frozen=True)
class Row:
    """One line of the tables.

    Attributes:
        name: of its folder.
        group: the heading it stands under.
        label: its name in tables.
        steps: what is done to the teacher, learning included; () for the teacher itself.
        teacher: what it starts from.
        curve: rows of one curve are joined in the picture, in this order.
        precision: of the small graphs.
    """

    name: str
    group: str
    label: str
    steps: tuple[Step, ...] = ()
    teacher: Teacher = TABLETOP_CLIP
    curve: str = ""
    precision: Precision = Precision.INT8

    @property
    def learns(self) -> tuple[TrainingSettings, ...]:
        """Its trainings, in order."""
        found: list[TrainingSettings] = []
        for step in self.steps:
            if isinstance(step.method, QuantizationAwareTraining):
                found.append(step.method.training)
            found += [step.learn] * step.rounds if step.learn is not None else []
        return tuple(found)

    @property
    def training_steps(self) -> int:
        """Optimizer steps in all."""
        return sum(phase.steps for each in self.learns for phase in each.phases)

    @property
    def recipe(self) -> CompressRecipe:
        """All of its steps."""
        return CompressRecipe(self.steps)

    @property
    def recipe_before(self) -> CompressRecipe | None:
        """Its steps without any learning; None where nothing was changed, or nothing is learned."""
        kept = tuple(
            replace(step, learn=None)
            for step in self.steps
            if step.method is not None and not step.method.trains
        )
        return CompressRecipe(kept) if kept and self.learns else None

    def described(self) -> str:
        """Steps and precision as JSON, one text for one meaning."""
        steps = [{"kind": type(step.method).__name__, **encode(step)} for step in self.steps]
        document: dict[str, Any] = {"steps": steps, "precision": self.precision.value}
        return json.dumps(document, sort_keys=True)


@dataclass(frozen=True)
class TrainingData:
    """Dataset folders to learn from.

    Attributes:
        rows: of those that keep to the budget.
        recipes: of shipped recipes, which train longer and need more.
    """

    rows: Path
    recipes: Path

    def of(self, row: Row) -> Path:
        """What a row learns from."""
        return self.recipes if row.curve == RECIPE_CURVE else self.rows


@dataclass(frozen=True)
class Contrast:
    """Two models of the tables, compared sample by sample.

    Attributes:
        what: is compared.
        row: name of a row.
        against: name of another; the same: that row before it learned anything.
    """

    what: str
    row: str
    against: str


CONTRASTS = (
    Contrast("the student: distilled against taught by labels", "student-embedding", "student-labels"),
    Contrast("the student: distilled against not taught", "student-embedding", "student-none"),
    Contrast("the student: a tenth of the rate where both learn", "student-slow", "student-embedding"),
    Contrast("a fresh student: distilled against taught by labels", "fresh-distilled", "fresh-labels"),
    Contrast("neurons 30 %: fine-tuned against before", "neurons-30", "neurons-30"),
    Contrast("neurons 60 %: fine-tuned against before", "neurons-60", "neurons-60"),
    Contrast("heads 66 %: fine-tuned against before", "heads-66", "heads-66"),
    Contrast("layers 6 and 3: fine-tuned against before", "depth-6-3", "depth-6-3"),
    Contrast("the same, a tenth of the learning rate", "depth-6-3-slow", "depth-6-3-slow"),
    Contrast("low rank 60 %: fine-tuned against before", "low-rank-60", "low-rank-60"),
    Contrast("80 % zeros: fine-tuned against before", "sparse-80", "sparse-80"),
    Contrast("neurons 60 %: Taylor against magnitude", "neurons-60", "neurons-60-magnitude"),
    Contrast("neurons 30 %: gates against Taylor", "neurons-30-gate", "neurons-30"),
    Contrast("neurons 60 %: gates against Taylor", "neurons-60-gate", "neurons-60"),
    Contrast("neurons 60 %: gates against magnitude", "neurons-60-gate", "neurons-60-magnitude"),
    Contrast("heads 66 %: gates against Taylor", "heads-66-gate", "heads-66"),
    Contrast("neurons 60 %: three rounds against one", "neurons-60-rounds", "neurons-60"),
    Contrast("neurons 60 %: across all layers against in each layer", "neurons-60-global", "neurons-60"),
    Contrast("low rank 60 %: whitened against plain", "low-rank-60", "low-rank-60-plain"),
    Contrast("filters 50 %: fine-tuned against before", "filters-50", "filters-50"),
    Contrast("cross-modal 60 %: fine-tuned against before", "cross-modal-60", "cross-modal-60"),
    Contrast("cross-modal 60 %: by values against by position", "cross-modal-60", "cross-modal-60-position"),
    Contrast("cross-modal 60 %: by values against by plain sum", "cross-modal-60", "cross-modal-60-sum"),
    Contrast("4 layers: by logits and attention maps against by logits", "fusion-attention", "fusion"),
    Contrast("the same, int8 on trained grids", "fusion-attention-qat-int8", "fusion-qat-int8"),
    Contrast("the same, int4 on trained grids", "fusion-attention-qat-int4", "fusion-qat-int4"),
    Contrast("4 layers, int8: grids trained against not", "fusion-qat-int8", "fusion"),
    Contrast("4 layers, int4: grids trained against not", "fusion-qat-int4", "fusion-int4"),
)  # fmt: skip


@dataclass(frozen=True)
class _Alone:
    """Makes rows of one method, each followed by the same training."""

    group: str
    budget: Budget
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, label: str, *methods: CompressionMethod, curve: str = "") -> None:
        learned = (*map(Step, methods), Step(learn=self.budget.learning()))
        self.rows.append(Row(name, self.group, label, learned, curve=curve))


def dual_encoder_rows(budget: Budget) -> tuple[Row, ...]:
    """All rows of the tabletop CLIP."""
    return (
        Row("teacher", "Precision alone", "the teacher, int8"),
        Row("teacher-int4", "Precision alone", "the teacher, int4", curve="int4", precision=Precision.INT4),
        *_neurons(budget),
        *_heads(budget),
        *_depth(budget),
        *_low_rank(budget),
        *_zeros(budget),
        *_together(budget),
        *_students(budget),
        _recipe("gentle"),
        _recipe("balanced"),
    )


def all_rows(budget: Budget) -> tuple[Row, ...]:
    """The rows of every teacher, in the order of the tables."""
    return (
        *dual_encoder_rows(budget),
        *student_rows(),
        *filter_rows(budget),
        *cross_modal_rows(budget),
        *fusion_student_rows(),
    )


def filter_rows(budget: Budget) -> tuple[Row, ...]:
    """Rows of the dual encoder with a convolutional image tower."""
    group = "Filters"
    rows = [Row("convnext", group, "the teacher", teacher=TABLETOP_CONVNEXT)]
    for share in (25, 50):
        steps = (Step(PruneFilters(share / 100, score=Score.TAYLOR)), Step(learn=budget.learning()))
        rows.append(
            Row(f"filters-{share}", group, f"{share} % gone", steps, TABLETOP_CONVNEXT, curve="filters")
        )
    return tuple(rows)


def cross_modal_rows(budget: Budget) -> tuple[Row, ...]:
    """Rows of the ViLT; its one tower takes all of the steps."""
    group = "Cross-modal attention"
    learning = TrainingSettings(
        (Phase(budget.image + budget.text + budget.joint),),
        batch_size=BATCH,
        learning_rate=2e-4,
        losses=LossWeights(response=0.0, embedding=0.0, answer=1.0),
        precision=Floats.BFLOAT16,
    )
    rows = [
        Row("vilt", "Precision alone", "the teacher, int8", teacher=TABLETOP_VILT, curve="int8"),
        Row("vilt-int4", "Precision alone", "the teacher, int4", (), TABLETOP_VILT, "int4", Precision.INT4),
    ]
    for share in (30, 60):
        for score in (BlockScore.VALUE, BlockScore.POSITION, BlockScore.SUM):
            if score is not BlockScore.VALUE and share != CROSS_MODAL_COMPARED:
                continue
            default = score is BlockScore.VALUE
            label = f"{share} % of blocks gone" + ("" if default else f", by {score.value}")
            name = f"cross-modal-{share}" + ("" if default else f"-{score.value}")
            steps = (Step(PruneCrossModal(share / 100, score)), Step(learn=learning))
            curve = "cross-modal blocks" if default else ""
            rows.append(Row(name, group, label, steps, TABLETOP_VILT, curve))
    return tuple(rows)


def fusion_student_rows() -> tuple[Row, ...]:
    """Rows of a student of four of the ViLT's six layers, distilled with and without attention maps.

    In int8 and int4 as they are, and with grids that were trained, which shows them more questions too.
    """
    group = "Distillation: 4 of 6 layers"
    rows = []
    for loss, words, weight in (("", "by logits", 0.0), ("-attention", "by logits and attention maps", 1.0)):
        losses = LossWeights(response=1.0, embedding=0.0, attention=weight, answer=0.5)
        learn = TrainingSettings(
            (Phase(FUSION_STUDENT_STEPS),),
            batch_size=2 * BATCH,
            learning_rate=3e-4,
            losses=losses,
            precision=Floats.BFLOAT16,
        )
        steps = (Step(DropLayers({"fusion": 4})), Step(learn=learn))
        name, curve = f"fusion{loss}", f"4 layers, {words}"
        for precision in (Precision.INT8, Precision.INT4):
            suffix = "" if precision is Precision.INT8 else f"-{precision.value}"
            label = f"{words}, {precision.value}"
            rows.append(Row(f"{name}{suffix}", group, label, steps, TABLETOP_VILT, curve, precision))
        for precision in (Precision.INT8, Precision.INT4):
            settings = QatSettings(
                (Phase(FUSION_QAT_STEPS),),
                batch_size=BATCH,
                losses=LossWeights(response=1.0, embedding=0.0, answer=0.5),
            )
            trained = (*steps, Step(QuantizationAwareTraining(settings, precision)))
            label = f"{words}, {precision.value} with trained grids"
            row = Row(f"{name}-qat-{precision.value}", group, label, trained, TABLETOP_VILT, "", precision)
            rows.append(row)
    return tuple(rows)


def chosen_rows(rows: Sequence[Row], names: Iterable[str]) -> tuple[Row, ...]:
    """The rows of these names in the tables' order; all where none is named.

    Raises:
        ValueError: there is no such row.
    """
    wanted = set(names)
    unknown = sorted(wanted - {row.name for row in rows})
    if unknown:
        raise ValueError(f"no such row: {', '.join(unknown)}; there are {', '.join(r.name for r in rows)}")
    return tuple(row for row in rows if not wanted or row.name in wanted)


def _neurons(budget: Budget) -> list[Row]:
    made = _Alone("Feed-forward neurons", budget)
    for share in (30, 60):
        step = PruneUnits(ratio=share / 100, score=Score.TAYLOR)
        made.add(f"neurons-{share}", f"{share} % gone", step, curve="neurons")
    made.add("neurons-60-magnitude", "60 % gone, by magnitude", PruneUnits(ratio=0.6))
    for share in (30, 60):
        step = PruneUnits(ratio=share / 100, score=Score.GATE)
        made.add(f"neurons-{share}-gate", f"{share} % gone, by gates", step, curve="neurons by gates")
    wide = PruneUnits(ratio=0.6, score=Score.TAYLOR, scope=Scope.GLOBAL)
    made.add("neurons-60-global", "60 % gone, across all layers", wide)
    image = PruneUnits(ratio=0.6, score=Score.TAYLOR, components=("image_encoder",))
    made.add("neurons-60-image", "60 % gone, image tower only", image)
    rounds = Step(
        PruneUnits(ratio=0.6, score=Score.TAYLOR),
        rounds=ROUNDS,
        schedule=Schedule.LINEAR,
        learn=budget.learning(rounds=ROUNDS),
    )
    made.rows.append(Row("neurons-60-rounds", made.group, "60 % gone, in three rounds", (rounds,)))
    return made.rows


def _heads(budget: Budget) -> list[Row]:
    made = _Alone("Attention heads", budget)
    for share in (33, 66):
        step = PruneUnits(units=(Units.HEADS,), ratio=share / 100, score=Score.TAYLOR)
        made.add(f"heads-{share}", f"{share} % gone", step, curve="heads")
    gates = PruneUnits(units=(Units.HEADS,), ratio=0.66, score=Score.GATE)
    made.add("heads-66-gate", "66 % gone, by gates", gates)
    return made.rows


def _depth(budget: Budget) -> list[Row]:
    made = _Alone("Layers", budget)
    for image, text in ((9, 4), (6, 3)):
        label = f"{image} of 12 and {text} of 6 stay"
        made.add(f"depth-{image}-{text}", label, _layers(image, text), curve="layers")
    slow = Step(learn=budget.learning(rate=3e-5))
    label = "6 of 12 and 3 of 6 stay, a tenth of the learning rate"
    made.rows.append(Row("depth-6-3-slow", made.group, label, (Step(_layers(6, 3)), slow)))
    return made.rows


def _layers(image: int, text: int) -> DropLayers:
    return DropLayers({"image_encoder": image, "text_encoder": text})


def _low_rank(budget: Budget) -> list[Row]:
    made = _Alone("Low rank", budget)
    for share in (30, 60):
        label = f"{share} % of weights gone, whitened"
        made.add(f"low-rank-{share}", label, LowRank(ratio=share / 100), curve="low rank")
    plain = LowRank(ratio=0.6, whitened=False)
    made.add("low-rank-60-plain", "60 % of weights gone, plain", plain)
    return made.rows


def _zeros(budget: Budget) -> list[Row]:
    made = _Alone("Zeros", budget)
    for share in (50, 80):
        step = Sparsify(sparsity=share / 100)
        made.add(f"sparse-{share}", f"{share} % of weights 0", step, curve="zeros")
    made.add("sparse-2-4", "two of every four weights 0", Sparsify(two_of_four=True))
    return made.rows


def _together(budget: Budget) -> list[Row]:
    made = _Alone("Together", budget)
    neurons = PruneUnits(ratio=0.3, score=Score.TAYLOR)
    both = PruneUnits(units=(Units.NEURONS, Units.HEADS), ratio=0.33, score=Score.TAYLOR)
    made.add("neurons-heads", "neurons and heads 33 %", both)
    made.add("depth-neurons", "layers 9 and 4, neurons 30 %", _layers(9, 4), neurons)
    made.add("neurons-low-rank", "neurons 30 %, low rank 30 %", neurons, LowRank(ratio=0.3))
    everything = (_layers(9, 4), both, LowRank(ratio=0.3))
    made.add("everything", "layers 9 and 4, neurons and heads 33 %, low rank 30 %", *everything)
    return made.rows


def _students(budget: Budget) -> list[Row]:
    """The same student taught in several ways, and a smaller one that begins at random."""
    group = "Distillation: layers 6 and 3, neurons 50 %"
    small = (Step(_layers(6, 3)), Step(PruneUnits(ratio=0.5, score=Score.TAYLOR)))
    losses_of: dict[str, tuple[str, LossWeights | None]] = {
        "none": ("not taught at all", None),
        "labels": ("by labels only", LABELS),
        "embedding": ("by response and embeddings", LossWeights()),
        "relation": ("by response and relations", LossWeights(embedding=0.0, relation=1.0)),
        "hidden": ("by response and hidden states", LossWeights(embedding=0.0, hidden=1.0)),
        "attention": ("by response and attention maps", LossWeights(embedding=0.0, attention=1.0)),
    }
    rows = []
    for name, (label, losses) in losses_of.items():
        learned = () if losses is None else (Step(learn=budget.learning(losses)),)
        rows.append(Row(f"student-{name}", group, label, (*small, *learned)))
    learning = budget.learning()
    *alone, together = learning.phases
    slow = replace(learning, phases=(*alone, replace(together, learning_rate=3e-5)))
    label = "by response and embeddings, a tenth of the rate where both learn"
    rows.append(Row("student-slow", group, label, (*small, Step(learn=slow))))
    group = "Distillation: fresh, 6 layers of 128 and 3 of 96"
    shapes = {"image_encoder": ComponentShape(128, 6, 4), "text_encoder": ComponentShape(96, 3, 3)}
    fresh = Step(Reinitialize(shapes))
    for name, label, losses in (
        ("distilled", "by response and embeddings", LossWeights()),
        ("labels", "by labels only", LABELS),
    ):
        rows.append(
            Row(f"fresh-{name}", group, label, (fresh, Step(learn=budget.learning(losses, rate=1e-3))))
        )
    return rows


def student_rows() -> tuple[Row, ...]:
    """Rows of the student that `balanced` made, which `tiny` makes smaller still."""
    group = "Smaller still"
    tiny = replace(_recipe("tiny"), group=group, teacher=TABLETOP_STUDENT)
    return (
        Row("student", group, "what balanced made", teacher=TABLETOP_STUDENT),
        Row("student-int4", group, "the same, int4", (), TABLETOP_STUDENT, "int4", Precision.INT4),
        tiny,
        replace(tiny, name="recipe-tiny-int4", label="tiny, int4", precision=Precision.INT4),
    )


def _recipe(name: str) -> Row:
    """A shipped recipe of the tabletop models, with the training that it says."""
    steps = read_compress_recipe(f"tabletop-{name}").steps
    return Row(f"recipe-{name}", "Shipped recipes", name, steps, curve=RECIPE_CURVE)
