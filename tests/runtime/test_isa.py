"""Which processors are trusted with int8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pocketvl_runtime import isa

X86 = "processor : 0\nmodel name\t: Some CPU\nflags\t\t: fpu {flags}\n\nprocessor : 1\nmodel name : Other\n"
ARM = "processor : 0\nFeatures : fp asimd {flags}\n\nModel : Raspberry Pi 5\n"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    isa.instruction_set.cache_clear()
    isa.cpu_name.cache_clear()


@pytest.mark.parametrize(
    ("machine", "text", "expected", "exact"),
    [
        ("x86_64", X86.format(flags="avx avx2"), "avx2", False),
        ("x86_64", X86.format(flags="avx2 avx_vnni"), "avx_vnni", True),
        ("x86_64", X86.format(flags="avx2 avx512bw avx512_vnni"), "avx512_vnni", True),
        ("x86_64", X86.format(flags="avx2 avx512bw avx512_vnni amx_tile amx_int8"), "avx512_vnni+amx", True),
        ("x86_64", X86.format(flags="avx2 avx512bw"), "avx512", False),
        ("x86_64", X86.format(flags="sse4_2"), "x86_64", False),
        ("x86_64", None, "x86_64", False),
        ("AMD64", None, "AMD64", False),
        ("aarch64", ARM.format(flags="asimddp"), "neon+dotprod", True),
        ("aarch64", ARM.format(flags="asimddp i8mm"), "neon+dotprod+i8mm", True),
        ("aarch64", ARM.format(flags=""), "neon", True),
        ("arm64", None, "neon", True),
    ],
)
def test_only_x86_without_vnni_is_inexact(
    machine: str,
    text: str | None,
    expected: str,
    exact: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(isa, "_CPUINFO", path)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert isa.instruction_set() == expected
    assert isa.has_exact_int8() == exact


@pytest.mark.parametrize(
    ("text", "name"), [(X86, "Some CPU"), (ARM, "Raspberry Pi 5"), (None, "whatever the platform says")]
)
def test_the_processor_has_a_name(
    text: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(isa, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "whatever the platform says")
    assert isa.cpu_name() == name
