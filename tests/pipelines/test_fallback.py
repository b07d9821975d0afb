"""Which groups of layers a step of the fallback moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pocketvl.pipelines.fallback import State
from pocketvl.pipelines.moves import Move, fewest_that_pass, next_moves, worst_first
from pocketvl.pipelines.variants import Fallbacks
from pocketvl.select.shortfall import Shortfall
from pocketvl_runtime.manifest import Precision

_SAVES = st.floats(0, 1, allow_nan=False)
_MOVES = st.lists(
    st.builds(
        Move,
        st.sampled_from(["image_encoder", "text_encoder"]),
        st.just(("layer",)),
        st.sampled_from([Precision.INT8DYN, Precision.FP32]),
        _SAVES,
        st.integers(0, 10),
    ),
    max_size=12,
)


ROOM = 1000


def move(
    saves: float,
    component: str = "image_encoder",
    precision: Precision = Precision.FP32,
    bytes_added: int = 0,
) -> Move:
    return Move(component, (f"layer_{saves}",), precision, saves, bytes_added)


def state(share: float | None) -> State:
    missed = None if share is None else Shortfall(frozenset(), share)
    return State(Fallbacks(), (), {}, missed)


def test_the_nearest_state_is_the_one_of_which_least_has_to_go() -> None:
    assert state(0.2).is_nearer_than(state(0.3))
    assert state(None).is_nearer_than(state(0.1))
    assert not state(0.3).is_nearer_than(state(0.3))
    assert not state(0.1).is_nearer_than(state(None))
    assert not state(None).is_nearer_than(state(None))


def test_one_group_that_causes_most_goes_alone() -> None:
    waiting = [move(0.8), move(0.1), move(0.1)]
    assert next_moves(waiting, (), 0.5, ROOM) == waiting[:1]


def test_of_equal_groups_so_many_go_as_the_share_asks_for() -> None:
    waiting = [move(0.1) for _ in range(10)]
    assert len(next_moves(waiting, (), 0.25, ROOM)) == 3
    assert len(next_moves(waiting, (), 0.01, ROOM)) == 1


def test_only_components_to_blame_are_touched() -> None:
    waiting = [move(0.5, "image_encoder"), move(0.1, "text_encoder"), move(0.1, "text_encoder")]
    assert {each.component for each in next_moves(waiting, {"text_encoder"}, 0.9, ROOM)} == {"text_encoder"}
    assert next_moves(waiting, {"fusion"}, 0.9, ROOM) == []


def test_a_step_is_of_one_component_and_one_precision() -> None:
    waiting = [move(0.4, precision=Precision.INT8DYN), move(0.3), move(0.2, precision=Precision.INT8DYN)]
    assert next_moves(waiting, (), 1.0, ROOM) == [waiting[0], waiting[2]]
    assert next_moves([move(0.4), move(0.3, "text_encoder")], (), 1.0, ROOM) == [move(0.4)]


def test_what_is_too_large_is_passed_over() -> None:
    table, linear = move(0.8, bytes_added=ROOM + 1), move(0.1, bytes_added=ROOM)
    assert next_moves([table, linear], (), 0.5, ROOM) == [linear]
    halves = [move(0.3, bytes_added=600), move(0.2, bytes_added=600), move(0.1, bytes_added=400)]
    assert next_moves(halves, (), 1.0, ROOM) == [halves[0], halves[2]]
    assert next_moves([table], (), 0.5, ROOM) == []


@given(_MOVES, st.floats(0, 1), st.integers(0, 10))
def test_steps_go_on_until_nothing_that_fits_waits(waiting: list[Move], share: float, room: int) -> None:
    taken = next_moves(waiting, (), share, room)
    assert bool(taken) == any(each.bytes_added <= room for each in waiting)
    assert all(each in waiting for each in taken)
    assert sum(each.bytes_added for each in taken) <= room


@given(st.integers(1, 60), st.data())
def test_of_a_step_that_moved_too_much_a_part_is_taken(count: int, data: st.DataObject) -> None:
    needed, trials = data.draw(st.integers(1, count)), data.draw(st.integers(0, 8))
    tried: list[int] = []

    def attempt(fewer: int) -> int | None:
        tried.append(fewer)
        return fewer if fewer >= needed else None

    found = fewest_that_pass(count, count, attempt, trials)
    assert needed <= found <= count
    assert len(tried) <= trials
    assert all(0 < fewer < count for fewer in tried)
    assert trials < 6 or found == needed  # 2 ** 6 > 60


def test_dynamic_int8_comes_before_float_where_it_saves_a_good_part() -> None:
    def ways(loss: float, saved: float) -> tuple[Move, Move]:
        return move(loss, bytes_added=30), move(saved, precision=Precision.INT8DYN, bytes_added=-1)

    moves = worst_first([ways(0.2, 0.1), ways(1.0, 0.2), ways(0.8, 0.3), (move(0.5), None)])
    assert [(each.precision, each.saves) for each in moves] == [
        (Precision.FP32, 1.0),  # of which dynamic int8 saves a fifth
        (Precision.INT8DYN, 0.3),
        (Precision.FP32, 0.5),
        (Precision.INT8DYN, 0.1),
        (Precision.FP32, 0.5),  # of the third, what dynamic int8 left
        (Precision.FP32, 0.1),
    ]
    assert [each.bytes_added for each in moves] == [30, -1, 0, -1, 31, 31]
