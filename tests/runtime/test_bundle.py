"""A bundle's files are handed out only when they are what was exported."""

from __future__ import annotations

import hashlib
import os
import shutil
import traceback
from pathlib import Path

import pytest

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.selftest import selftest
from tests.runtime.bundles import VARIANTS, reseal

GRAPH = "graphs/text_encoder.fp32.onnx"


def test_a_whole_bundle_verifies(whole_bundle: Path) -> None:
    opened = Bundle.open(whole_bundle)
    assert opened.verify() == len(opened.manifest.files) == 12
    assert opened.file(GRAPH) == (whole_bundle / GRAPH).resolve()
    sizes = [
        (whole_bundle / "graphs" / f"{r}.fp32.onnx").stat().st_size for r in ("image_encoder", "text_encoder")
    ]
    assert opened.size_bytes("onnx-fp32") == sum(sizes)


def test_one_changed_byte_is_noticed(bundle: Path) -> None:
    data = bytearray((bundle / GRAPH).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / GRAPH).write_bytes(data)
    with pytest.raises(
        BundleError, match=r"text_encoder\.fp32\.onnx is damaged: .* expected .* copy the bundle"
    ):
        Bundle.open(bundle).file(GRAPH)
    with pytest.raises(BundleError, match="is damaged"):
        Bundle.open(bundle).verify()


@pytest.mark.parametrize("change", [b"", b"x"], ids=["shorter", "longer"])
def test_a_file_of_another_size_is_refused_before_it_is_read(
    bundle: Path, change: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle / GRAPH
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + change if change else path.read_bytes()[:-1])
    opened = Bundle.open(bundle)
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("it was opened"))
    for give in (opened.file, opened.read):
        with pytest.raises(BundleError, match=rf"is damaged: \d+ bytes, expected {size}; copy"):
            give(GRAPH)


def test_read_gives_the_bytes_or_refuses_them(bundle: Path) -> None:
    data = (bundle / GRAPH).read_bytes()
    assert Bundle.open(bundle).read(GRAPH) == data
    (bundle / GRAPH).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match="is damaged: its sha256 is"):
        Bundle.open(bundle).read(GRAPH)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / GRAPH).unlink()
    with pytest.raises(BundleError, match=r"text_encoder\.fp32\.onnx cannot be read \(No such file"):
        Bundle.open(bundle).file(GRAPH)


def test_a_folder_in_place_of_a_file_is_named(bundle: Path) -> None:
    (bundle / GRAPH).unlink()
    (bundle / GRAPH).mkdir()
    with pytest.raises(BundleError, match=r"text_encoder\.fp32\.onnx cannot be read"):
        Bundle.open(bundle).file(GRAPH)


def test_a_file_may_be_a_link_out_of_the_bundle_but_is_held_to_its_checksum(bundle: Path) -> None:
    outside = bundle.parent / "outside"
    (bundle / GRAPH).rename(outside)
    (bundle / GRAPH).symlink_to(outside)
    opened = Bundle.open(bundle)
    assert opened.read(GRAPH) == outside.read_bytes()
    assert opened.file(GRAPH) == (bundle / GRAPH).absolute()  # the name that the manifest knows
    content = bytearray(outside.read_bytes())
    content[0] ^= 1
    outside.write_bytes(content)
    for give in (opened.file, opened.read):
        with pytest.raises(BundleError, match="is damaged: its sha256 is not the expected") as caught:
            give(GRAPH)
        assert hashlib.sha256(content).hexdigest()[:12] not in str(caught.value)  # of what somebody else owns


def test_a_bundle_of_links_opens(bundle: Path, tmp_path: Path) -> None:
    """The cache of a model hub holds `snapshots/REVISION/FILE -> ../../blobs/SHA256`."""
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    for path in [path for path in bundle.rglob("*") if path.is_file()]:
        link = snapshot / path.relative_to(bundle)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    shutil.rmtree(bundle)
    assert selftest(Bundle.open(snapshot), VARIANTS).passed


SECRETS = [
    '{"api_token": "s3cret"}',
    "s3cret = 1",
    '{"schema_version": "s3cret"}',
    '{"format": "pocketvl-bundle", "version": "s3cret"}',
    '{"s3cret": 1, "s3cret": 2}',
]


@pytest.mark.parametrize("content", SECRETS)
def test_a_manifest_may_be_a_link_but_errors_quote_nothing_of_another_folder(
    bundle: Path, content: str
) -> None:
    outside = bundle.parent / "config.json"
    (bundle / "manifest.json").rename(outside)
    (bundle / "manifest.json").symlink_to("../config.json")
    assert Bundle.open(bundle).verify() == 12
    outside.write_text(content)
    with pytest.raises(
        BundleError, match=r"is a link to .*config\.json, which is no manifest of format"
    ) as caught:
        Bundle.open(bundle)
    said = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in said.split("BundleError")[-1]
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_link_to_a_manifest_that_is_not_there_is_named(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    (bundle / "manifest.json").symlink_to("../blobs/none")
    with pytest.raises(BundleError, match=r"tiny.manifest\.json does not exist; is .*tiny a bundle\?"):
        Bundle.open(bundle)


@pytest.mark.parametrize("path", ["manifest.json", GRAPH])
def test_links_that_go_round_in_circles_are_named(bundle: Path, path: str) -> None:
    (bundle / path).unlink()
    (bundle / path).symlink_to((bundle / path).name)
    with pytest.raises(BundleError, match=f"{Path(path).name} cannot be read"):
        Bundle.open(bundle).file(GRAPH)


def test_a_bundle_that_is_a_link_to_itself_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BundleError, match="loop"):
        Bundle.open(tmp_path / "loop")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\ud800"])
def test_a_path_that_is_none_is_a_bundle_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError):
        Bundle.open(tmp_path / name)


def test_no_path_is_not_the_working_directory(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle)
    with pytest.raises(BundleError, match="the path of the bundle is empty"):
        Bundle.open("")
    assert Bundle.open(".").manifest.model.name == "tiny"


@pytest.mark.parametrize("path", ["manifest.json", GRAPH])
def test_only_regular_files_are_read(bundle: Path, path: str) -> None:
    (bundle / path).unlink()
    os.mkfifo(bundle / path)
    with pytest.raises(BundleError, match=rf"{Path(path).name} cannot be read \(not a regular file\)"):
        Bundle.open(bundle).file(GRAPH)


@pytest.mark.parametrize("path", ["manifest.json", "golden/golden.json"])
def test_json_beyond_reason_is_not_read(bundle: Path, path: str) -> None:
    with (bundle / path).open("r+b") as stored:
        stored.truncate(16_000_001)
    if path != "manifest.json":
        reseal(bundle)
    with pytest.raises(
        BundleError, match=r"cannot be read \(16000001 bytes, and at most 16000000 are read\)"
    ):
        Bundle.open(bundle).golden()


def test_a_folder_of_the_bundle_may_be_a_link(bundle: Path) -> None:
    (bundle / "graphs").rename(bundle.parent / "elsewhere")
    (bundle / "graphs").symlink_to("../elsewhere")
    assert Bundle.open(bundle).verify() == 12


@pytest.mark.parametrize("path", ["manifest.json", GRAPH, "tokenizer.json", "golden/golden.json"])
@pytest.mark.parametrize("target", ["/dev/zero", "/dev/tty"])
def test_a_link_to_a_device_is_not_read(bundle: Path, path: str, target: str) -> None:
    (bundle / path).unlink()
    (bundle / path).symlink_to(target)
    with pytest.raises(
        BundleError, match=rf"{Path(path).name} cannot be read \((not a regular file|No such)"
    ):
        Bundle.open(bundle).verify()


def test_a_link_to_the_bundle_itself_is_fine(bundle: Path) -> None:
    link = bundle.parent / "latest"
    link.symlink_to(bundle)
    assert Bundle.open(link).verify() == 12


def test_files_that_the_manifest_does_not_list_are_not_handed_out(bundle: Path) -> None:
    (bundle / "graphs" / "extra.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"lists no file 'graphs/extra\.onnx'"):
        Bundle.open(bundle).file("graphs/extra.onnx")


@pytest.mark.parametrize(("make", "message"), [("", "does not exist"), ("file", "is not a folder")])
def test_what_is_no_folder_is_told(tmp_path: Path, make: str, message: str) -> None:
    if make:
        (tmp_path / "b").write_text("x")
    with pytest.raises(BundleError, match=message):
        Bundle.open(tmp_path / "b")


def test_a_folder_without_a_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json does not exist; is .* a bundle\?"):
        Bundle.open(tmp_path)


def test_an_unknown_variant_lists_those_there_are(whole_bundle: Path) -> None:
    with pytest.raises(BundleError, match="no variant 'onnx-int4'; it has onnx-fp32, onnx-int8, tflite-fp32"):
        Bundle.open(whole_bundle).variant("onnx-int4")
