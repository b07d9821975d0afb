"""Make a desktop JVM load TFLite's own library out of its AAR: x86-64 Linux.

    python3 android_demo/native/load_on_desktop.py tensorflow-lite.aar build/android/tflite

OUT gets the AAR's x86_64 library as it is, byte for byte; libc.so, libm.so, libdl.so and liblog.so, which it
asks for by these names; and libtflite_desktop.so, which brings all of them and is what
`System.load` is given.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = "libtensorflowlite_jni.so"
WHOLE = "libtflite_desktop.so"
STAND_INS = ("libm.so", "libdl.so", "liblog.so")  # what is in them is in libc.so
COMPILE = ("cc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-Wl,--no-as-needed")


def main(arguments: list[str]) -> str | None:
    """Builds it; returns what is wrong, in one line."""
    if len(arguments) != 2:
        return "usage: load_on_desktop.py AAR OUT"
    aar, out = map(Path, arguments)
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        here = f"{platform.system()} {platform.machine()}"
        return f"TFLite's library is loaded on x86-64 Linux only, and this is {here}"
    if shutil.which("cc") is None:
        return "no C compiler: apt-get install gcc libc6-dev"
    try:
        library = zipfile.ZipFile(aar).read(f"jni/x86_64/{LIBRARY}")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        return f"{aar} is no AAR with a library for x86_64 ({error})"
    out.mkdir(parents=True, exist_ok=True)
    (out / LIBRARY).write_bytes(library)
    try:
        build(out)
    except subprocess.CalledProcessError as error:
        return f"cc cannot build the libraries in {out} ({error.stderr.strip().splitlines()[0]})"
    return None


def build(out: Path) -> None:
    """Compiles what lies around the library."""
    nothing = out / "nothing.c"
    nothing.write_text("typedef int nothing;\n")
    versions = f"-Wl,--version-script,{HERE / 'bionic_shim.map'}"
    compile_(out / "libc.so", versions, str(HERE / "bionic_shim.c"), "-lm")
    for name in STAND_INS:
        compile_(out / name, str(nothing))
    needed = [str(out / name) for name in ("libc.so", *STAND_INS, LIBRARY)]
    compile_(out / WHOLE, str(nothing), "-Wl,-rpath,$ORIGIN", "-Wl,--allow-shlib-undefined", *needed)


def compile_(target: Path, *arguments: str) -> None:
    """Links a shared library that goes by its file's name."""
    command = [*COMPILE, f"-Wl,-soname,{target.name}", "-o", str(target), *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
