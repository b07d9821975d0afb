"""Compile the app's resources with aapt2, from the manifest that Gradle reads too."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from android_demo.packaging.artifacts import read_versions
from android_demo.packaging.toolchain import BuildError, run

PACKAGE = "dev.pocketvl.demo"


@dataclass(frozen=True)
class Resources:
    """What aapt2 makes: an APK without code, rules that keep the classes that it names, the class R."""

    package: Path
    rules: Path
    manifest: Path
    classes: Path


def compile_resources(source: Path, android: Path, out: Path) -> Resources:
    """Compile ``source/res`` and ``source/AndroidManifest.xml``."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    versions = read_versions()
    manifest = out / "AndroidManifest.xml"
    manifest.write_text(
        complete_manifest((source / "AndroidManifest.xml").read_text("utf-8"), versions), encoding="utf-8"
    )
    run("aapt2 compile", "aapt2", "compile", "--dir", source / "res", "-o", out / "compiled.zip")
    run(
        "aapt2 link", "aapt2", "link", "-I", android, "--manifest", manifest, "--java", out / "java",
        "--min-sdk-version", versions["android.min"], "--target-sdk-version", versions["android.target"],
        "--version-code", "1", "--version-name", versions["app.version"],
        "--proguard", out / "named.pro", "-o", out / "resources.apk", out / "compiled.zip",
    )  # fmt: skip
    classes = out / "r"
    run("javac R", "javac", "--release", "17", "-d", classes, *sorted((out / "java").rglob("R.java")))
    return Resources(out / "resources.apk", out / "named.pro", manifest, classes)


def complete_manifest(text: str, versions: dict[str, str]) -> str:
    """Add to the manifest what Gradle takes from build.gradle.kts and refuses in the file."""
    opening = re.search(r"<manifest\b[^>]*>", text)
    if opening is None or "<application\n" not in text:
        raise BuildError(
            "app/src/main/AndroidManifest.xml has no manifest or application element: restore it"
        )
    least, target = versions["android.min"], versions["android.target"]
    sdk = f'<uses-sdk android:minSdkVersion="{least}" android:targetSdkVersion="{target}" />'
    named = opening.group().removesuffix(">") + f' package="{PACKAGE}">\n    {sdk}'
    text = text.replace(opening.group(), named, 1)
    return text.replace("<application\n", '<application\n        android:extractNativeLibs="false"\n', 1)
