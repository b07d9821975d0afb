"""Every variant of a tiny model with outlier channels passes the gate, with few layers in fallback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pocketvl import api
from pocketvl.families import open_checkpoint
from pocketvl.tabletop.folder import write_tabletop
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.selftest import selftest
from tests.families.heard import write_heard
from tests.families.tiny_blip import make_tiny_blip
from tests.families.tiny_chinese import make_tiny_chinese
from tests.families.tiny_clap import make_tiny_clap
from tests.families.tiny_metaclip import make_tiny_metaclip

VARIANTS = [
    f"{engine}-{precision}"
    for engine in ("onnx", "tflite")
    for precision in ("fp32", "fp16", "int8", "int8dyn")
]
"""Those that are judged without task data."""
LARGEST_SHARE = 0.1


@pytest.mark.full
@pytest.mark.parametrize("make", [make_tiny_chinese, make_tiny_blip, make_tiny_metaclip, make_tiny_clap])
def test_variants_pass_with_a_tenth_of_the_weights_in_fallback_at_most(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = make(tmp_path / "tiny")
    (tmp_path / "data").mkdir()
    if make is make_tiny_clap:
        write_heard(tmp_path / "data", 21, 24)
    else:
        write_tabletop(tmp_path / "data", 21, 24, size=40)
    result = api.export(
        folder,
        tmp_path / "out",
        calibration=tmp_path / "data",
        variants=VARIANTS,
        cache=tmp_path / "cache",
    )
    assert result.failures == ()
    assert selftest(Bundle.open(tmp_path / "out"), VARIANTS).failures == ()
    sizes = {
        (component.name, name): parameter.numel()
        for component in open_checkpoint(folder).components.values()
        for name, parameter in component.module.named_parameters()
    }
    for variant in VARIANTS:
        gate = result.report.variants[variant].gate
        assert gate is not None
        moved = {(each.component, f"{layer}.weight") for each in gate.fallbacks for layer in each.layers}
        assert sum(sizes[each] for each in moved) <= LARGEST_SHARE * sum(sizes.values()), variant
