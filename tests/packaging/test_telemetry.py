"""Importing either package switches off what ONNX Runtime tells its makers, whoever imports that later."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = "import sys, {}, os; print(os.environ['ORT_DISABLE_TELEMETRY'], 'numpy' in sys.modules)"


@pytest.mark.parametrize(
    "module", ["pocketvl", "pocketvl_runtime", "pocketvl.errors", "pocketvl_runtime.isa"]
)
@pytest.mark.parametrize(("told", "heeded"), [(None, "1"), ("0", "0"), ("", "")])
def test_it_is_off_unless_the_user_says_otherwise(module: str, told: str | None, heeded: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if told is None else {"ORT_DISABLE_TELEMETRY": told}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout == f"{heeded} False\n"
