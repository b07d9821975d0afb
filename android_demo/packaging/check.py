"""Check an APK as it would be shipped: signature, manifest, permissions, network, alignment, size."""

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from android_demo.packaging.archive import content_offset, is_stored
from android_demo.packaging.dex import DexFile, MethodReference
from android_demo.packaging.elf import load_alignment
from android_demo.packaging.toolchain import BuildError, run

PERMISSIONS = {
    "android.permission.READ_EXTERNAL_STORAGE",
    "android.permission.READ_MEDIA_IMAGES",
    "android.permission.READ_MEDIA_VISUAL_USER_SELECTED",
}
SIZE_LIMIT_BYTES = 40_000_000
LARGE_PAGE_BYTES = 16384

NETWORK = re.compile(
    r"^(java/net/(?!URI$|URISyntaxException$|URLEncoder$|URLDecoder$|UnknownServiceException$)|javax/net/|java/nio/channels/\w*(Socket|Datagram)"
    r"|android/net/(?!Uri(\$|$))|android/net/http|android/webkit/|android/app/DownloadManager|okhttp3/|com/squareup/okhttp"
    r"|org/apache/http/|retrofit2/|io/ktor/|android/media/MediaPlayer|com/google/android/gms|io/grpc)"
)


def check_apk(apk: Path) -> str:
    """Run every check, then raise once.

    Returns:
        What was found, for people.

    Raises:
        BuildError: lists what is wrong.
    """
    wrong: list[str] = []
    lines = [f"{apk}: {apk.stat().st_size / 1e6:.1f} MB"]
    if apk.stat().st_size >= SIZE_LIMIT_BYTES:
        wrong.append(f"it is larger than {SIZE_LIMIT_BYTES / 1e6:.0f} MB")
    verified = run("apksigner verify", "apksigner", "verify", "--verbose", "--print-certs", apk)
    lines += [
        line for line in verified.splitlines() if re.search(r"^Verified using.*true|certificate DN", line)
    ]
    run("zipalign", "zipalign", "-c", "-p", "4", apk)
    badging = run("aapt2 dump badging", "aapt2", "dump", "badging", apk)
    lines += [
        line
        for line in badging.splitlines()
        if re.match(r"package:|sdkVersion|targetSdkVersion|uses-permission|native-code|launchable", line)
    ]
    wrong += _check_manifest(badging)
    with zipfile.ZipFile(apk) as archive:
        dex = [
            DexFile(archive.read(name))
            for name in archive.namelist()
            if re.fullmatch(r"classes\d*\.dex", name)
        ]
        libraries, misplaced = _check_entries(apk, archive)
    lines += libraries
    wrong += misplaced
    methods = {method for file in dex for method in file.methods}
    defined = {name for file in dex for name in file.defined}
    lines.append(f"dex: {len(defined)} classes, {len(methods)} methods named")
    manifest = run("aapt2 dump xmltree", "aapt2", "dump", "xmltree", apk, "--file", "AndroidManifest.xml")
    wrong += [
        f"the code has no {name}, which the manifest names" for name in missing_classes(manifest, defined)
    ]
    wrong += [f"code reaches for the network: {use}" for use in network_uses(methods, defined)]
    if wrong:
        raise BuildError("the APK must not be shipped:\n  " + "\n  ".join(wrong) + "\n" + "\n".join(lines))
    lines.append("no code that opens a network connection")
    return "\n".join(lines)


def network_uses(methods: Iterable[MethodReference], defined: set[str]) -> list[str]:
    """Methods that open connections, and network libraries that are in the APK."""
    uses = {f"{m.owner}.{m.name}" for m in methods if NETWORK.match(m.owner)}
    return sorted(uses | {name for name in defined if NETWORK.match(name)})


def missing_classes(manifest: str, defined: set[str]) -> list[str]:
    """Activities, providers and the application that the code has not; ``manifest`` is as aapt2 prints it."""
    named = set(re.findall(r':name\(0x01010003\)="(dev\.pocketvl\.[\w.]+)"', manifest))
    return sorted(name for name in named if name.replace(".", "/") not in defined) if named else ["component"]


def _check_manifest(badging: str) -> list[str]:
    wrong = []
    found = set(re.findall(r"uses-permission: name='([^']+)'", badging))
    if found != PERMISSIONS:
        wrong.append(
            f"permissions are {sorted(found)}, not those that docs/ANDROID.md names: {sorted(PERMISSIONS)}"
        )
    for key, value in (("sdkVersion", "26"), ("targetSdkVersion", "36")):
        if f"{key}:'{value}'" not in badging:
            wrong.append(f"{key} is not {value}")
    if "native-code: 'arm64-v8a' 'x86_64'" not in badging:
        wrong.append("native libraries are not those of arm64-v8a and x86_64")
    return wrong


def _check_entries(apk: Path, archive: zipfile.ZipFile) -> tuple[list[str], list[str]]:
    """Native libraries by page size, and models that cannot be mapped."""
    lines, wrong, small = [], [], False
    for entry in archive.infolist():
        stored = entry.compress_type == zipfile.ZIP_STORED
        if is_stored(entry.filename) and not stored:
            wrong.append(f"{entry.filename} is compressed: it cannot be mapped")
        if entry.filename.endswith((".tflite", ".onnx")) and content_offset(apk, entry) % 64:
            wrong.append(f"{entry.filename} does not lie at a multiple of 64 bytes")
        if entry.filename.endswith(".so"):
            offset, pages = content_offset(apk, entry), load_alignment(archive.read(entry))
            small = small or pages < LARGE_PAGE_BYTES
            lines.append(
                f"{entry.filename}: segments aligned to {pages // 1024} KB, "
                f"in the APK at a multiple of {(offset & -offset) // 1024} KB"
            )
            if offset % LARGE_PAGE_BYTES:
                wrong.append(f"{entry.filename} does not lie at a multiple of 16 KB")
    if small:
        lines.append(
            "libraries of 4 KB do not load on devices with 16-KB pages, and Google Play refuses them: "
            "build with Gradle, whose LiteRT is aligned"
        )
    return lines, wrong
