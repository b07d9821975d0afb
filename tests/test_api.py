"""From Python one can do what the commands do, with the same defaults, and get results instead of text."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pocketvl import api
from pocketvl.cli import cli
from pocketvl.errors import SourceError
from pocketvl.recipes.compress_recipe import METHODS
from pocketvl.stage import PlanError
from pocketvl.tabletop.folder import write_tabletop
from tests.families.tiny_dual import make_tiny_dual
from tests.families.vilt_folder import make_vilt_folder

SHOWN_BY_THE_COMMAND = {"as_json", "progress", "trial_progress", "help", "dry_run"}
NOT_ALWAYS_NEEDED = {"compress": {"out"}}
"""What a command asks for unless it runs dry; from Python, that is a function of its own."""


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
            assert key in {each.name for each in required} | NOT_ALWAYS_NEEDED.get(name, set())
        else:
            assert default == options[key], key


def test_an_inspection_names_components_ports_costs_and_methods(tmp_path: Path) -> None:
    found = api.inspect(make_tiny_dual(tmp_path / "dual"))
    assert list(found.components) == ["image_encoder", "text_encoder"]
    image, text = found.components.values()
    assert [port.shape for port in image.inputs] == [(1, 32, 32, 3)]
    parameters = sum(p.numel() for p in api.load_checkpoint(tmp_path / "dual").model.parameters())
    assert found.total.parameters == parameters - 1  # the scale of similarities is of no component
    assert image.methods["prune-filters"] is None
    assert "no stack" in str(image.methods["drop-layers"])
    assert "no convolutions" in str(text.methods["prune-filters"])
    assert text.methods["drop-layers"] is None
    assert set(image.methods) == set(text.methods) == set(METHODS)


def test_inspect_prints_it_and_says_what_cannot_be_exported(tmp_path: Path) -> None:
    folder = make_vilt_folder(tmp_path / "vilt")
    done = CliRunner().invoke(cli, ["inspect", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "takes ids int32 1x16 (token_ids from text)" in done.output
    assert "compress: " in done.output
    assert "prune-cross-modal" in done.output
    printed = CliRunner().invoke(cli, ["inspect", str(folder), "--json"], catch_exceptions=False)
    stored = json.loads(printed.output)
    assert stored["components"]["fusion"]["layers"] == {"vilt.encoder.layer": 2}


def test_wrong_inputs_raise_what_the_command_prints(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no config\.json"):
        api.export(tmp_path, tmp_path / "out", cache=tmp_path / "cache")
    (tmp_path / "data").mkdir()
    write_tabletop(tmp_path / "data", 1, 4, size=40)
    with pytest.raises(PlanError, match="unknown metric 'nonsense'"):
        api.export(
            make_tiny_dual(tmp_path / "dual"),
            tmp_path / "out",
            calibration=tmp_path / "data",
            gate={"nonsense": 1.0},
            cache=tmp_path / "cache",
        )
