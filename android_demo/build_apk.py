"""Build the demo app's APK without Gradle: aapt2, kotlinc, javac, R8, zip, zipalign, apksigner.

``make android`` runs it. The Gradle project beside it builds the same sources in Android Studio.
"""

import argparse
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from android_demo.packaging import artifacts, toolchain
from android_demo.packaging.archive import ApkWriter
from android_demo.packaging.bundles import read_bundle
from android_demo.packaging.check import check_apk
from android_demo.packaging.resources import Resources, compile_resources
from android_demo.packaging.toolchain import BuildError, run

PROJECT = Path(__file__).parent
JAVA_MODULES = ("core", "engines")
PROCESSORS = ("arm64-v8a", "x86_64")
MIN_SDK = "26"
ORT_RULES = "-dontwarn ai.onnxruntime.**\n"


@dataclass(frozen=True)
class Libraries:
    """What is compiled against and goes into the APK: classes, native libraries, rules for shrinking."""

    jars: tuple[Path, ...]
    native: tuple[Path, ...]
    rules: tuple[Path, ...]


def main() -> int:
    """Parse, build, check, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="*", type=Path, help="bundle folders that go into the app")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("build/android"), help="where everything is written"
    )
    parser.add_argument(
        "--ort-aar", type=Path, help="onnxruntime-android's AAR: adds ONNX Runtime and the onnx variants"
    )
    parser.add_argument(
        "--resources-only", action="store_true", help="only R.java and resources.apk, for the JVM tests"
    )
    options = parser.parse_args()
    out = options.out.resolve()  # Maven takes relative ones to lie beside its POM
    try:
        if options.resources_only:
            make_resources(out)
            return 0
        toolchain.require()
        apk = build(options.bundles, out, options.ort_aar)
        print(check_apk(apk))
    except BuildError as error:
        print(f"make android: {error}", file=sys.stderr)
        return 1
    return 0


def make_resources(out: Path) -> Resources:
    """Compile the app's resources, for the APK and for the JVM tests."""
    toolchain.require(("aapt2", "mvn"))
    android = artifacts.fetch((artifacts.ANDROID_RESOURCES,), out / "fetched")[artifacts.ANDROID_RESOURCES]
    return compile_resources(PROJECT / "app" / "src" / "main", android, out / "resources")


def build(bundles: list[Path], out: Path, ort_aar: Path | None) -> Path:
    """Build and sign the APK; returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    everything = (
        artifacts.KOTLIN_COMPILER,
        artifacts.R8,
        artifacts.ANDROID,
        artifacts.ANDROID_RESOURCES,
        artifacts.ONNXRUNTIME,
    )
    fetched = artifacts.fetch(everything + artifacts.LIBRARIES, out / "fetched")
    android = fetched[artifacts.ANDROID]
    resources = make_resources(out)
    libraries = open_libraries(fetched, ort_aar, out)
    print("javac, kotlinc", file=sys.stderr)
    java = compile_java(android, (*libraries.jars, fetched[artifacts.ONNXRUNTIME]), out / "java")
    kotlin = compile_kotlin(
        fetched[artifacts.KOTLIN_COMPILER], android, (java, *libraries.jars), resources, out
    )
    print("R8", file=sys.stderr)
    compiled = (java, kotlin, resources.classes, *libraries.jars)
    dex = shrink(fetched[artifacts.R8], android, compiled, (resources.rules, *libraries.rules), out)
    print("zip, sign", file=sys.stderr)
    unsigned = out / "pocketvl-demo-unsigned.apk"
    pack(unsigned, resources.package, dex, libraries.native, bundles, with_onnx=ort_aar is not None)
    return sign(unsigned, out)


def open_libraries(fetched: dict[artifacts.Artifact, Path], ort_aar: Path | None, out: Path) -> Libraries:
    """Unpack the AARs."""
    archives = [fetched[artifacts.TFLITE], fetched[artifacts.TFLITE_API], *([ort_aar] if ort_aar else [])]
    opened = [artifacts.open_aar(aar, out / "aars") for aar in archives]
    rules = [PROJECT / "app" / "rules.pro", *(aar.rules for aar in opened if aar.rules)]
    if ort_aar is None:
        (out / "without-ort.pro").write_text(ORT_RULES)
        rules.append(out / "without-ort.pro")
    jars = [fetched[a] for a in (artifacts.KOTLIN_STDLIB, artifacts.GSON, artifacts.JSPECIFY)]
    return Libraries(
        (*jars, *(aar.classes for aar in opened)),
        tuple(aar.libraries for aar in opened if aar.libraries),
        tuple(rules),
    )


def compile_java(android: Path, jars: tuple[Path, ...], out: Path) -> Path:
    """Compile core and engines into one folder."""
    sources = [
        p
        for module in JAVA_MODULES
        for p in sorted((PROJECT / module / "src" / "main" / "java").rglob("*.java"))
    ]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    run(
        "javac",
        "javac",
        "--release",
        "17",
        "-g",
        "-parameters",
        "-nowarn",
        "-cp",
        _path((*jars, android)),
        "-d",
        out,
        *sources,
    )
    return out


def compile_kotlin(
    compiler: Path, android: Path, jars: tuple[Path, ...], resources: Resources, out: Path
) -> Path:
    """Compile the app against Android's classes."""
    target = out / "kotlin"
    shutil.rmtree(target, ignore_errors=True)
    run(
        "kotlinc", "java", "-Xmx1g", "-XX:TieredStopAtLevel=1", "-cp", f"{compiler}/*",
        "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler",
        "-no-stdlib", "-no-reflect", "-jvm-target", "17", "-Werror", "-Xjspecify-annotations=strict",
        "-cp", _path((android, resources.classes, *jars)), "-d", target,
        PROJECT / "app" / "src" / "main" / "kotlin",
    )  # fmt: skip
    return target


def shrink(r8: Path, android: Path, classes: tuple[Path, ...], rules: tuple[Path, ...], out: Path) -> Path:
    """Turn classes into dex files without what nothing calls."""
    inputs = []
    for path in classes:
        if path.is_dir():
            path = _jar(path, out / f"{path.name}-classes.jar")
        inputs.append(path)
    target = out / "dex"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    flags = [part for rule in rules for part in ("--pg-conf", str(rule))]
    run(
        "R8", "java", "-Xmx3g", "-cp", r8, "com.android.tools.r8.R8", "--release", "--min-api", MIN_SDK,
        "--lib", android, "--lib", toolchain.java_home(), "--output", target, *flags, *inputs,
    )  # fmt: skip
    return target


def pack(
    apk: Path, resources: Path, dex: Path, native: tuple[Path, ...], bundles: list[Path], *, with_onnx: bool
) -> None:
    """Put everything into one archive; what is to be mapped stays uncompressed."""
    writer = ApkWriter(apk)
    with zipfile.ZipFile(resources) as package:
        for name in package.namelist():
            writer.add(name, package.read(name))
    for path in sorted(dex.glob("*.dex")):
        writer.add(path.name, path.read_bytes())
    for folder in native:
        for processor in PROCESSORS:
            for library in sorted((folder / processor).glob("*.so")):
                writer.add(f"lib/{processor}/{library.name}", library.read_bytes())
    engines = frozenset({"tflite", "onnx"} if with_onnx else {"tflite"})
    for bundle in bundles:
        for inside, content in read_bundle(bundle, engines):
            writer.add(f"assets/bundles/{bundle.name}/{inside}", content)
    writer.close()


def sign(unsigned: Path, out: Path) -> Path:
    """Sign with a debug key, made once; it says nothing about who made the APK."""
    key = out / "debug.keystore"
    if not key.exists():
        run(
            "keytool", "keytool", "-genkeypair", "-keystore", key, "-storepass", "android", "-alias", "debug",
            "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000", "-dname", "CN=pocketvl debug",
        )  # fmt: skip
    apk = out / "pocketvl-demo.apk"
    run(
        "apksigner",
        "apksigner",
        "sign",
        "--ks",
        key,
        "--ks-pass",
        "pass:android",
        "--in",
        unsigned,
        "--out",
        apk,
    )
    return apk


def _jar(folder: Path, jar: Path) -> Path:
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*.class")):
            archive.write(path, path.relative_to(folder))
    return jar


def _path(parts: tuple[Path, ...]) -> str:
    return ":".join(str(part) for part in parts)


if __name__ == "__main__":
    sys.exit(main())
