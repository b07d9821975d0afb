"""What goes into the APK, and the checks that an APK must pass."""

import hashlib
import json
import struct
import zipfile
from pathlib import Path

import pytest

from android_demo.packaging.archive import ApkWriter, content_offset
from android_demo.packaging.bundles import canonical, read_bundle
from android_demo.packaging.check import missing_classes, network_uses
from android_demo.packaging.dex import DexFile, MethodReference
from android_demo.packaging.elf import load_alignment
from android_demo.packaging.toolchain import BuildError
from pocketvl_runtime import load

BUNDLES = Path(__file__).parents[1] / "bundles"
TFLITE = frozenset({"tflite"})


def test_a_bundle_of_one_engine_is_valid_and_smaller(tmp_path: Path) -> None:
    for path, content in read_bundle(BUNDLES / "format-2.0", frozenset({"onnx"})):
        target = tmp_path / "bundle" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    model = load(tmp_path / "bundle", variant="onnx-fp32")
    assert not list((tmp_path / "bundle").rglob("*.tflite"))
    assert model is not None


def test_numbers_of_a_manifest_stay_as_they_are_written() -> None:
    files = dict(read_bundle(BUNDLES / "format-2.0", TFLITE))
    manifest = json.loads(files["manifest.json"])
    original = json.loads((BUNDLES / "format-2.0/manifest.json").read_text("utf-8"))
    assert manifest["tasks"] == original["tasks"]
    assert list(manifest["variants"]) == ["tflite-fp32"]
    text = files["manifest.json"].decode()
    checksum = manifest["manifest_sha256"]
    bare = text.replace(f'"manifest_sha256":"{checksum}",', "")
    assert hashlib.sha256(bare.encode()).hexdigest() == checksum


def test_canonical_form_escapes_as_the_format_says() -> None:
    assert canonical({"b": '"\\\n\x01é', "a": [True, None]}) == '{"a":[true,null],"b":"\\"\\\\\\n\\u0001é"}'


@pytest.mark.parametrize("name", ["flipped-bit", "format-1", "nothing"])
def test_what_is_no_whole_bundle_is_refused(name: str) -> None:
    with pytest.raises(BuildError, match=name):
        list(read_bundle(BUNDLES / name, TFLITE))


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    for path, content in read_bundle(BUNDLES / "format-2.0", TFLITE):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content[:-1] if path.endswith(".tflite") else content)
    with pytest.raises(BuildError, match="damaged"):
        list(read_bundle(tmp_path, TFLITE))


def test_models_and_libraries_lie_where_they_can_be_mapped(tmp_path: Path) -> None:
    apk = tmp_path / "a.apk"
    writer = ApkWriter(apk)
    for name in ("resources.arsc", "x.txt", "lib/arm64-v8a/libx.so", "assets/y.tflite", "assets/z.onnx"):
        writer.add(name, b"content of " + name.encode())
    writer.close()
    with zipfile.ZipFile(apk) as archive:
        assert archive.testzip() is None
        places = {entry.filename: content_offset(apk, entry) for entry in archive.infolist()}
        stored = {entry.filename for entry in archive.infolist() if entry.compress_type == zipfile.ZIP_STORED}
    assert places["lib/arm64-v8a/libx.so"] % 16384 == 0
    assert places["assets/y.tflite"] % 4096 == places["assets/z.onnx"] % 4096 == 0
    assert places["resources.arsc"] % 4 == 0
    assert stored == set(places) - {"x.txt"}
    assert apk.read_bytes()[places["assets/z.onnx"] :].startswith(b"content of assets/z.onnx")


@pytest.mark.parametrize(
    "owner", ["java/net/Socket", "java/net/URL", "javax/net/ssl/SSLSocket", "android/webkit/WebView"]
)
def test_calls_that_open_connections_are_found(owner: str) -> None:
    uses = network_uses([MethodReference(owner, "open", "()V")], set())
    assert uses == [f"{owner}.open"]


def test_names_that_open_nothing_are_let_pass() -> None:
    harmless = ["java/net/URI", "android/net/Uri", "android/net/Uri$Builder", "java/nio/channels/FileChannel"]
    assert (
        network_uses(
            [MethodReference(owner, "x", "()V") for owner in harmless], {"dev/pocketvl/demo/MainActivity"}
        )
        == []
    )


def test_a_network_library_in_the_apk_is_found() -> None:
    assert network_uses([], {"okhttp3/OkHttpClient"}) == ["okhttp3/OkHttpClient"]


def test_a_component_without_code_is_found() -> None:
    line = 'A: http://schemas.android.com/apk/res/android:name(0x01010003)="dev.pocketvl.demo.MainActivity"'
    assert missing_classes(line, {"dev/pocketvl/demo/MainActivity"}) == []
    assert missing_classes(line, {"dev/pocketvl/demo/Other"}) == ["dev.pocketvl.demo.MainActivity"]


def test_methods_of_a_dex_file_are_read() -> None:
    assert DexFile(_dex()).methods == [MethodReference("java/net/Socket", "close", "()V")]
    with pytest.raises(ValueError, match="not a dex"):
        DexFile(b"no")


def test_the_smallest_segment_alignment_of_a_library_counts() -> None:
    header = (
        b"\x7fELF\x02\x01"
        + bytes(26)
        + struct.pack("<Q", 64)
        + bytes(14)
        + struct.pack("<HH", 56, 2)
        + bytes(6)
    )
    segments = b"".join(
        struct.pack("<II", 1, 5) + bytes(40) + struct.pack("<Q", size) for size in (16384, 4096)
    )
    assert load_alignment(header + segments) == 4096
    with pytest.raises(ValueError, match="ELF"):
        load_alignment(b"MZ" + bytes(100))


def _dex() -> bytes:
    """A dex file that names Socket.close() and defines nothing."""
    strings = ["Ljava/net/Socket;", "V", "close"]
    tables = 0x70
    places = [tables, tables + 12, tables + 20, tables + 32]  # strings, types, protos, methods
    data = tables + 40
    offsets, content = [], b""
    for text in strings:
        offsets.append(data + len(content))
        content += bytes([len(text)]) + text.encode() + b"\0"
    header = bytearray(0x70)
    header[:8] = b"dex\n035\0"
    for at, count, place in ((56, 3, places[0]), (64, 2, places[1]), (72, 1, places[2]), (88, 1, places[3])):
        struct.pack_into("<II", header, at, count, place)
    body = (
        struct.pack("<3I", *offsets)
        + struct.pack("<2I", 0, 1)
        + struct.pack("<3I", 1, 1, 0)
        + struct.pack("<HHI", 0, 0, 2)
    )
    return bytes(header) + body + content
