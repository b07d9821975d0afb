"""From Python one can do what the commands do, with the same defaults, and get results instead of text."""

from __future__ import annotations

import inspect
from pathlib import Path

import click
import pytest

from pocketvl import api
from pocketvl.cli import cli
from pocketvl.errors import RecipeError, SourceError

SHOWN_BY_THE_COMMAND = {"as_json", "progress", "trial_progress", "help"}


@pytest.mark.parametrize("name", ["export", "search", "compress", "verify"])
def test_a_function_takes_what_its_command_takes_with_the_same_defaults(name: str) -> None:
    command = cli.commands[name]
    required = [each for each in command.params if each.required]
    given = [part for each in required for part in (each.opts[:1] if isinstance(each, click.Option) else [])]
    words = [word for option in given for word in (option, "x")] + ["x"] * (len(required) - len(given))
    options = dict(command.make_context(name, words).params)
    if "widths" in options:
        options["widths"] = tuple(int(part) for part in options["widths"].split(","))
    parameters = inspect.signature(getattr(api, name)).parameters
    assert set(options) - SHOWN_BY_THE_COMMAND == set(parameters) - SHOWN_BY_THE_COMMAND
    for key in set(parameters) - SHOWN_BY_THE_COMMAND - {"cache"}:
        default = parameters[key].default
        if default is inspect.Parameter.empty:
            assert key in {each.name for each in required}
        else:
            assert default == options[key], key


def test_wrong_inputs_raise_what_the_command_prints(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no config\.json"):
        api.export(tmp_path, tmp_path / "out", cache=tmp_path / "cache")
    with pytest.raises(RecipeError, match="nonsense"):
        api.verify(tmp_path, tmp_path, tmp_path, gate={"nonsense": 1.0})
