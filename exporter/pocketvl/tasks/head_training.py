"""Which phases a head can be trained in, by which losses.

Without torch, so that a plan is checked quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from pocketvl.errors import RecipeError
from pocketvl.network.heads import HeadKind
from pocketvl.train.method import check_components
from pocketvl.train.settings import EACH, LossWeights, Phase, TrainingSettings

S = TypeVar("S", bound=TrainingSettings)

# By kind of head the loss of the data's own labels; of the others there is none.
LABEL_LOSSES: Mapping[HeadKind, str] = {HeadKind.CONTRASTIVE: "contrast", HeadKind.LABELS: "answer"}


@dataclass(frozen=True)
class HeadTraining:
    """A head as it is trained.

    Attributes:
        kind: of the head.
        components: that it needs, in the model's order.
    """

    kind: HeadKind
    components: tuple[str, ...]

    def check(self, settings: TrainingSettings) -> None:
        """Holds the phases of a training against what the head has.

        The weights of embedding and response, which are above 0 by default, are ignored where there are none.

        Raises:
            RecipeError: a phase trains a component that is not there, or by losses that it does not have.
        """
        for phase in settings.phases:
            losses = settings.losses_of(phase)
            check_components(phase.components, self.components)
            for kind, loss in LABEL_LOSSES.items():
                if kind is not self.kind and getattr(losses, loss) > 0:
                    own = LABEL_LOSSES.get(self.kind, "none, and learns from a teacher's embeddings")
                    raise RecipeError(f"losses.{loss} is for another kind of model; this one has {own}")
            if losses.relation > 0 and not self.embeds:
                raise RecipeError("losses.relation compares embeddings, and this model has none")
            if not (self.is_whole(phase) and self.answers) and not losses.of_components:
                raise RecipeError(
                    "a component by itself learns from embedding, relation, hidden or attention: all weigh 0"
                )
            if not self.embeds and max(losses.response, losses.hidden, losses.attention, losses.answer) == 0:
                raise RecipeError("losses: this model learns from response, hidden, attention or answer")

    def planned(self, settings: S, rows: Callable[[], int] | None = None) -> S:
        """The settings as this model and its data make them.

        Args:
            settings: with phases for `each` component, or phases that count in epochs.
            rows: how many samples the data has; asked only where a phase counts in epochs.

        Returns:
            The settings with a phase for each component, and with steps.

        Raises:
            RecipeError: a phase counts in epochs, and there is no data.
        """
        phases = [
            _in_steps(single, settings, rows)
            for phase in settings.phases
            for single in (self._each(phase) if phase.components == EACH else (phase,))
        ]
        return replace(settings, phases=tuple(phases))

    def _each(self, phase: Phase) -> tuple[Phase, ...]:
        return tuple(replace(phase, components=(name,)) for name in self.components)

    @property
    def embeds(self) -> bool:
        """Whether components give embeddings."""
        return self.kind.embeds

    @property
    def answers(self) -> bool:
        """Whether the head makes anything of its components' outputs, from labels or a teacher's answers."""
        return self.kind in LABEL_LOSSES

    def trained(self, phase: Phase) -> tuple[str, ...]:
        """The components that a phase trains, in the model's order."""
        return tuple(name for name in self.components if not phase.components or name in phase.components)

    def is_whole(self, phase: Phase) -> bool:
        """Whether a phase trains all that the head needs; only then does the head answer."""
        return self.trained(phase) == self.components

    def label_weight(self, losses: LossWeights) -> float:
        """The weight of the data's own labels."""
        return float(getattr(losses, LABEL_LOSSES[self.kind])) if self.answers else 0.0

    def mirrors(self, settings: TrainingSettings, phase: Phase) -> bool:
        """Whether images are shown mirrored: not where labels that say left or right could become wrong."""
        labelled = self.is_whole(phase) and self.label_weight(settings.losses_of(phase)) > 0
        return settings.mirror and not labelled

    def distils(self, losses: LossWeights) -> bool:
        """Whether anything but the data's own labels is learned from."""
        of_components = losses.of_components if self.embeds else losses.runs_teacher
        return of_components or (self.answers and losses.response > 0)

    def needs_teacher(self, settings: TrainingSettings) -> bool:
        """Whether any phase learns from anything but the data's own labels."""
        return any(self.distils(settings.losses_of(phase)) for phase in settings.phases)

    def needs_mirrored(self, settings: TrainingSettings) -> bool:
        """Whether any phase compares what is made of mirrored images with the teacher's outputs."""
        return any(
            self.mirrors(settings, phase) and self.distils(settings.losses_of(phase))
            for phase in settings.phases
        )


def _in_steps(phase: Phase, settings: TrainingSettings, rows: Callable[[], int] | None) -> Phase:
    if not phase.epochs:
        return phase
    if rows is None:
        raise RecipeError("epochs: say steps where there is no dataset to learn from")
    batch_size = phase.batch_size or settings.batch_size
    return replace(phase, steps=max(1, round(phase.epochs * rows() / batch_size)), epochs=0.0)


def label_settings(kind: HeadKind, steps: int, batch_size: int) -> TrainingSettings:
    """One phase of all components on nothing but the data's own labels."""
    labels = LABEL_LOSSES[kind]
    weights = dict.fromkeys(("response", "embedding"), 0.0) | {labels: 1.0}
    return TrainingSettings((Phase(steps),), batch_size=batch_size, losses=LossWeights(**weights))
