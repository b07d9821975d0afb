"""A few hundred cases of the fuzz targets, thousands in `make test-full`; `make fuzz` runs any number."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.fuzz import __main__ as by_hand
from tests.fuzz.runner import run
from tests.fuzz.target import numbered_case
from tests.fuzz.targets import TARGETS
from tests.fuzz.toy import Toy

_CASES = {
    "pictures": 60,
    "texts": 50,
    "bundles": 30,
    "questions": 10,
    "reranking": 10,
    "graphs": 40,
    "commands": 40,
    "recipes": 30,
    "datasets": 20,
    "checkpoints": 20,
}

# LiteRT looks for neither impossible tensors nor impossible shapes before it computes. Only LiteRT can mend
# that: a graph is code, and whoever takes one trusts its author.
_ENGINES_OWN = {"graphs": {"dies of SIGSEGV", "dies of SIGABRT", "dies of SIGFPE"}}


def test_every_target_has_its_cases() -> None:
    assert set(_CASES) == set(TARGETS)
    assert sum(_CASES.values()) == 310


@pytest.mark.parametrize(("first", "end"), [(0, 1), pytest.param(1, 10, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_undocumented_comes_of_odd_input(name: str, first: int, end: int, tmp_path: Path) -> None:
    cases = range(first * _CASES[name], end * _CASES[name])
    results = list(run(TARGETS[name](tmp_path), cases, tmp_path / "log"))
    findings = [r for r in results if r.is_finding and r.outcome not in _ENGINES_OWN.get(name, ())]
    told = [f"{r.outcome}: {r.what[:300]}: {r.detail[:300]}\n    {r.command}" for r in findings]
    assert not findings, "\n" + "\n".join(told)
    assert len({result.outcome for result in results}) > 1  # not everything is refused, nor everything taken


@pytest.mark.parametrize("name", TARGETS)
def test_a_name_and_a_number_make_the_same_case_again(name: str, tmp_path: Path) -> None:
    first, again = (TARGETS[name](tmp_path / folder) for folder in ("first", "again"))
    for number in (0, 7):
        case, other = numbered_case(first, number), numbered_case(again, number)
        assert (case.what, case.files) == (other.what, other.files)


def test_by_hand_cases_are_counted_by_target_and_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(by_hand, "TARGETS", {"toy": lambda _: Toy()})
    odd = [k for k in range(40) if numbered_case(Toy(), k).what.endswith("7")]
    assert odd
    done = CliRunner().invoke(by_hand.main, ["--cases", "40"])
    assert done.exit_code == 1
    rows = [line.split()[:3] for line in done.stdout.splitlines() if line.startswith("toy")]
    assert rows == [["toy", str(40 - len(odd)), "good"], ["toy", str(len(odd)), "FINDING:"]]
    assert f".venv/bin/python -m tests.fuzz --target toy --case {odd[0]}\n" in done.stdout
    assert {p.name for p in (tmp_path / "build" / "fuzz").iterdir()} == {f"toy-{k}" for k in odd}
    done = CliRunner().invoke(by_hand.main, ["--case", str(next(k for k in range(40) if k not in odd))])
    assert done.exit_code == 0
