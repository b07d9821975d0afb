"""The bit search: which groups of layers get how many bits, under a budget of size or measured latency.

Source: Akiba et al., 2019, "Optuna" (arXiv 1907.10902); TPE: Bergstra et al., 2011, "Algorithms for
Hyper-Parameter Optimization"; constraints in TPE as in Watanabe and Hutter, 2022 (arXiv 2211.14411).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pocketvl.errors import RecipeError
from pocketvl_runtime.progress import Progress

if TYPE_CHECKING:
    import optuna

Widths = tuple[int, ...]
_STUDY, _SEARCHED = "bits", "searched"
_LOCK_GRACE_S = 30
_NUMBER = r"\d+(?:\.\d+)?"
_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_STARTUP_SHARE = 0.25


class BudgetKind(StrEnum):
    """The limited quantity: total size of graph files, or latency of one picture and one text."""

    SIZE = "size"
    LATENCY_MS = "latency_ms"


@dataclass(frozen=True)
class Budget:
    """A budget in bytes or milliseconds."""

    kind: BudgetKind
    limit: float


class Sampler(StrEnum):
    """Tree-structured Parzen estimator, or Gaussian process."""

    TPE = "tpe"
    GP = "gp"


@dataclass(frozen=True)
class Group:
    """Layers of one component that get the same number of bits.

    Attributes:
        component: whose layers.
        layers: their names in the component.
        widths: the bits to choose from, ascending.
        bytes_of: by width, what the layers' weights and scales take.
        loss_of: by width, what quantizing the group alone costs; a guess to start from.
    """

    component: str
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    bytes_of: Mapping[int, int]
    loss_of: Mapping[int, float]

    @property
    def name(self) -> str:
        """The parameter name in the Optuna study."""
        return f"{self.component}/{'+'.join(self.layers)}"


@dataclass(frozen=True)
class Outcome:
    """Score and cost of one choice of bits.

    Attributes:
        score: the objective, higher is better.
        size_bytes: sum of the graph files.
        latency_ms: measured; None where the budget does not ask for it.
    """

    score: float
    size_bytes: int
    latency_ms: float | None = None

    def cost(self, budget: Budget) -> float:
        """The cost that the budget limits."""
        if budget.kind is BudgetKind.SIZE:
            return float(self.size_bytes)
        if self.latency_ms is None:
            raise RecipeError("a budget of latency needs latencies that were measured")
        return self.latency_ms


@dataclass(frozen=True)
class Trial:
    """One choice that was tried."""

    number: int
    widths: Widths
    outcome: Outcome


@dataclass(frozen=True)
class SearchSettings:
    """How to search.

    Attributes:
        budget: what a variant may cost.
        trials: how many choices are tried in all.
        sampler: what proposes them.
        seed: of the sampler.
    """

    budget: Budget
    trials: int = 60
    sampler: Sampler = Sampler.GP
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise RecipeError(f"a search needs at least one trial, not {self.trials}")


def parse_budget(text: str) -> Budget:
    """A budget from `size=1.2MB` or `latency_ms=8`.

    Raises:
        RecipeError: it is neither.
    """
    kind, _, amount = (part.strip() for part in text.partition("="))
    try:
        known = BudgetKind(kind)
    except ValueError:
        raise RecipeError(f"budget: {text!r} is not size=1.2MB or latency_ms=8") from None
    if known is BudgetKind.SIZE:
        return Budget(known, parse_size(amount, "budget"))
    if not re.fullmatch(_NUMBER, amount) or not float(amount):
        raise RecipeError(f"budget: {amount!r} is not milliseconds")
    return Budget(known, float(amount))


def parse_size(text: str, name: str) -> float:
    """Bytes from `1.2MB` or `800 kB`.

    Args:
        text: a number above 0, and its unit.
        name: what it is, for the message.

    Raises:
        RecipeError: it is none.
    """
    found = re.fullmatch(rf"({_NUMBER})\s*([kKMG]?B)?", text.strip())
    if not found or not float(found[1]):
        raise RecipeError(f"{name}: {text!r} is not a size such as 1.2MB")
    return float(found[1]) * _UNITS[(found[2] or "").upper()]


def search_bits(
    groups: Sequence[Group],
    evaluate: Callable[[Widths], Outcome],
    settings: SearchSettings,
    journal: Path,
    progress: Progress | None = None,
) -> tuple[Trial, ...]:
    """Try choices of bits until as many as wanted have been tried, by this process or others.

    Every process that searches with the same journal takes part in one study; one that is killed loses the
    trial that it was at.

    Args:
        groups: what bits are chosen for.
        evaluate: from one width a group to its outcome.
        settings: budget, number of trials, sampler, seed.
        journal: the study's file; made if missing.
        progress: called after every trial.

    Returns:
        All trials of the study, in order.

    Raises:
        RecipeError: the journal is of another search.
    """
    study = _open_study(groups, settings, journal)

    def objective(trial: optuna.Trial) -> float:
        widths = tuple(trial.suggest_categorical(group.name, group.widths) for group in groups)
        outcome = _known(groups, study, widths) or evaluate(widths)
        trial.set_user_attr("size_bytes", outcome.size_bytes)
        trial.set_user_attr("latency_ms", outcome.latency_ms)
        trial.set_user_attr("over", outcome.cost(settings.budget) / settings.budget.limit - 1)
        return outcome.score

    while (done := len(_complete(study))) < settings.trials:
        if progress is not None:
            progress(done, settings.trials, _best_so_far(groups, study, settings.budget))
        study.sampler = _sampler(settings, len(study.get_trials(deepcopy=False)))
        study.optimize(objective, n_trials=1, catch=())
    if progress is not None:
        progress(settings.trials, settings.trials, _best_so_far(groups, study, settings.budget))
    return trials_of(groups, study)


def trials_of(groups: Sequence[Group], study: optuna.Study) -> tuple[Trial, ...]:
    """The complete trials of a study."""
    return tuple(
        Trial(
            trial.number,
            tuple(int(trial.params[group.name]) for group in groups),
            Outcome(
                float(cast(float, trial.value)),
                int(trial.user_attrs["size_bytes"]),
                trial.user_attrs["latency_ms"],
            ),
        )
        for trial in _complete(study)
    )


def best_first(trials: Sequence[Trial], budget: Budget) -> tuple[Trial, ...]:
    """The trials within the budget, each choice once, the best first."""
    distinct = {trial.widths: trial for trial in reversed(trials)}
    fitting = [trial for trial in distinct.values() if trial.outcome.cost(budget) <= budget.limit]
    return tuple(sorted(fitting, key=lambda t: (-t.outcome.score, t.outcome.cost(budget), t.number)))


def starting_points(groups: Sequence[Group], budget: Budget, overhead_bytes: int) -> list[Widths]:
    """Choices to begin with: all groups at their least and at their greatest width, and greedy ones between.

    The greedy ones widen the groups that lose most a byte first: up to the budget of size, or where latency
    is limited, a quarter, a half and three quarters of the way.

    Args:
        groups: what bits are chosen for.
        budget: what a variant may cost.
        overhead_bytes: what the graph files hold beside the groups' weights.
    """
    least = tuple(group.widths[0] for group in groups)
    most = tuple(group.widths[-1] for group in groups)
    total = {widths: overhead_bytes + layers_bytes(groups, widths) for widths in (least, most)}
    if budget.kind is BudgetKind.SIZE:
        limits = [budget.limit]
    else:
        limits = [total[least] + share * (total[most] - total[least]) for share in (0.25, 0.5, 0.75)]
    greedy = [_greedy(groups, limit - overhead_bytes) for limit in limits]
    return list(dict.fromkeys([*greedy, least, most]))


def _greedy(groups: Sequence[Group], limit: float) -> Widths:
    """Widens, from the least widths on, whatever saves most loss a byte, as long as it fits."""
    widths = [group.widths[0] for group in groups]
    steps = []
    for index, group in enumerate(groups):
        for narrow, wide in zip(group.widths, group.widths[1:], strict=False):
            gain = group.loss_of[narrow] - group.loss_of[wide]
            added = group.bytes_of[wide] - group.bytes_of[narrow]
            steps.append((gain / max(added, 1), index, narrow, wide, added))
    used = layers_bytes(groups, tuple(widths))
    for _, index, narrow, wide, added in sorted(steps, key=lambda step: (-step[0], step[1], step[2])):
        if widths[index] == narrow and used + added <= limit:
            widths[index], used = wide, used + added
    return tuple(widths)


def layers_bytes(groups: Sequence[Group], widths: Widths) -> int:
    """Bytes of the groups' weights and scales."""
    return sum(group.bytes_of[width] for group, width in zip(groups, widths, strict=True))


def enqueue(
    study_journal: Path, groups: Sequence[Group], settings: SearchSettings, points: Sequence[Widths]
) -> None:
    """Put choices at the head of a study, or back there where a process was killed while it tried them."""
    study = _open_study(groups, settings, study_journal)
    names = [group.name for group in groups]
    states = (_states().COMPLETE, _states().WAITING)
    known = [
        trial.system_attrs.get("fixed_params", trial.params)
        for trial in study.get_trials(deepcopy=False, states=states)
    ]
    for widths in points:
        params = dict(zip(names, widths, strict=True))
        if params not in known:
            study.enqueue_trial(params)


def _open_study(groups: Sequence[Group], settings: SearchSettings, journal: Path) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal.parent.mkdir(parents=True, exist_ok=True)
    # optuna's own choice is a link to the journal: of a relative path it leads nowhere, and blocks for ever
    # where a process was killed while it held the lock
    lock = JournalFileOpenLock(str(journal), grace_period=_LOCK_GRACE_S)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal), lock)),
        study_name=_STUDY,
        direction="maximize",
        load_if_exists=True,
    )
    # one attribute, so that no other process finds half of it
    ingredients = {
        "groups": [[group.name, list(group.widths)] for group in groups],
        "budget": [settings.budget.kind.value, settings.budget.limit],
    }
    if study.user_attrs.get(_SEARCHED, ingredients) != ingredients:
        raise RecipeError(f"{journal} is the study of another search: name another folder, or delete it")
    study.set_user_attr(_SEARCHED, ingredients)
    return study


def _sampler(settings: SearchSettings, number: int) -> optuna.samplers.BaseSampler:
    """The Optuna sampler of a trial number; a seed of its own keeps processes from proposing the same."""
    import warnings

    import optuna

    def over(trial: optuna.trial.FrozenTrial) -> Sequence[float]:
        return (float(trial.user_attrs.get("over", math.inf)),)

    seed = settings.seed + number
    startup = max(5, round(_STARTUP_SHARE * settings.trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both arguments are marked experimental
        if settings.sampler is Sampler.GP:
            return optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=startup, constraints_func=over, deterministic_objective=True
            )
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, constraints_func=over
        )


def _states() -> type[optuna.trial.TrialState]:
    import optuna

    return optuna.trial.TrialState


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(_states().COMPLETE,))


def _known(groups: Sequence[Group], study: optuna.Study, widths: Widths) -> Outcome | None:
    """The outcome of the same choice, where it was tried before."""
    return next((t.outcome for t in trials_of(groups, study) if t.widths == widths), None)


def _best_so_far(groups: Sequence[Group], study: optuna.Study, budget: Budget) -> str:
    best = best_first(trials_of(groups, study), budget)
    if not best:
        return "nothing within the budget yet"
    outcome = best[0].outcome
    return f"best {100 * outcome.score:.2f} % at {outcome.size_bytes / 1e6:.2f} MB"
