"""A bundle that listens is asked like one that sees: Python, command line, self-test and bench."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketvl_runtime import load
from pocketvl_runtime.audio import AudioWarning, Sound, load_features
from pocketvl_runtime.bench import bench
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError, InputError
from pocketvl_runtime.selftest import selftest
from pocketvl_runtime.tasks import AudioTimingMs
from tests.runtime.bundles import LABELS, TEXTS, edit_golden, reseal
from tests.runtime.listening import PROCESSOR, SHORT, SOUND, VARIANT, audio_embedding, write_listening
from tests.runtime.sounds import noise, wav_bytes
from tests.runtime.test_cli import answer, run


@pytest.fixture(scope="module")
def ears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_listening(tmp_path_factory.mktemp("ears") / "ears")


@pytest.fixture
def copied(ears: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ears, tmp_path / "ears"))


def test_a_sound_is_embedded_and_matched_however_it_is_handed_in(ears: Path) -> None:
    model = load(ears)
    expected = audio_embedding(load_features(ears / SOUND, PROCESSOR))
    np.testing.assert_allclose(model.embed_audio(ears / SOUND), expected, atol=1e-6)
    content = (ears / SOUND).read_bytes()
    np.testing.assert_array_equal(model.embed_audio(content), model.embed_audio(str(ears / SOUND)))
    report = model.match(ears / SOUND, TEXTS)
    read = model.embed_text(TEXTS).astype(np.float64)
    logits = 20.0 * (read @ expected.astype(np.float64))
    wanted = np.exp(logits - logits.max())
    np.testing.assert_allclose([r.probability for r in report.results], wanted / wanted.sum(), atol=1e-5)
    assert isinstance(report.timing_ms, AudioTimingMs)
    assert [r.label for r in model.classify(Sound(noise(), 48_000), ["a", "b"]).results] == ["a", "b"]
    assert model.audio_processor == PROCESSOR


def test_a_long_sound_is_told(ears: Path) -> None:
    with pytest.warns(AudioWarning, match=r"lasts 0\.3 s, and its first 0\.2 s are taken"):
        load(ears).match(wav_bytes(noise(0.3)), ["a"])


def test_what_the_model_does_not_take_is_refused_in_one_line(ears: Path, whole_bundle: Path) -> None:
    listens, sees = load(ears), load(whole_bundle, "onnx-fp32")
    with pytest.raises(InputError, match="the sound is of type Image; give the path of a WAV file"):
        listens.match(Image.new("RGB", (4, 4)), ["a"])
    with pytest.raises(BundleError, match="ears takes sounds, not pictures"):
        listens.embed_image("x.png")
    with pytest.raises(BundleError, match="tiny takes pictures, not sounds"):
        sees.embed_audio(ears / SOUND)
    with pytest.raises(InputError, match="tiny takes pictures, not sounds"):
        sees.match(Sound(noise(), 48_000), ["a"])


def test_its_self_test_passes_and_finds_other_features(copied: Path) -> None:
    report = selftest(Bundle.open(copied), [VARIANT])
    assert (report.passed, report.images, report.sounds, report.texts, report.answers) == (True, 0, 2, 3, 4)
    path = copied / "golden/features/chirp.f32"
    off = np.frombuffer(path.read_bytes(), "<f4").copy()
    off[5] += 0.01
    path.write_bytes(off.tobytes())
    reseal(copied)
    (failure,) = selftest(Bundle.open(copied), [VARIANT]).failures
    assert failure.startswith("golden/audio/chirp.wav: features are off by up to 1.00e-02 dB")
    path.write_bytes(off[:-1].tobytes())
    reseal(copied)
    (failure,) = selftest(Bundle.open(copied), [VARIANT]).failures
    assert "features, expected" in failure


def test_the_command_line_listens(ears: Path) -> None:
    asked = ("--text", "the red cube", "--text", "green", "--json")
    got = answer("match", ears, "--audio", ears / SHORT, *asked)
    assert list(got["timing_ms"]) == ["decode", "preprocess", "tokens", "audio", "text", "post", "total"]
    expected = load(ears).match(ears / SHORT, ["the red cube", "green"]).results
    assert [row["similarity"] for row in got["results"]] == [row.similarity for row in expected]
    classified = answer("classify", ears, "--audio", ears / SHORT, "--json")
    assert [row["label"] for row in classified["results"]] == list(LABELS)
    (row,) = answer("embed", ears, "--audio", ears / SHORT, "--json")["results"]
    assert row["audio"] == str(ears / SHORT)
    np.testing.assert_allclose(row["embedding"], load(ears).embed_audio(ears / SHORT), atol=1e-6)
    assert answer("selftest", ears, "--json")["sounds"] == 2
    assert "2 sounds, 3 texts, 4 answers" in run("selftest", ears).stdout
    assert "audio: 0.2 s at 48000 Hz" in run("info", ears).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("match", "--text", "a"), 2, "Missing option '--image', or '--audio' where the model listens."),
        (("match", "--text", "a", "--image", "x", "--audio", "y"), 2, "give --image or --audio, not both"),
        (("match", "--text", "a", "--image", "x.png"), 1, "ears takes sounds, not pictures"),
        (("match", "--text", "a", "--audio", "none.wav"), 1, "none.wav: no such sound"),
        (("embed", "--image", "x.png"), 1, "ears takes sounds, not pictures"),
        (("embed",), 2, "give at least one --image, --audio or --text"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    ears: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    command, *rest = arguments
    done = run(command, ears, *rest)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_it_is_timed_with_its_golden_sound_or_another(ears: Path, copied: Path) -> None:
    result = bench(Bundle.open(ears), [VARIANT], [1], 2)
    (timing,) = result.variants[VARIANT].timings
    assert list(timing.stages) == ["decode", "preprocess", "tokens", "audio", "text", "post", "total"]
    bench(Bundle.open(ears), [VARIANT], [1], 1, audio=ears / SHORT)
    with pytest.raises(InputError, match="an image or a sound, not both"):
        bench(Bundle.open(ears), [VARIANT], [1], 1, image="x", audio="y")

    def deaf(golden: Any) -> None:
        golden["inputs"].pop("audio")
        golden.update(outputs={}, answers={})

    edit_golden(copied, deaf)
    with pytest.raises(InputError, match="the golden pack has no sound: give one"):
        bench(Bundle.open(copied), [VARIANT], [1], 1)


def test_a_processor_that_cannot_be_run_is_refused_with_its_task(copied: Path) -> None:
    path = copied / "manifest.json"
    stored = json.loads(path.read_text())
    stored["processors"]["audio"]["high_hz"] = 90_000.0
    from tests.runtime.bundles import with_digest

    path.write_text(with_digest(stored))
    with pytest.raises(
        BundleError, match="task 'classify': this runtime cannot run mel filters from 50.0 to 90000"
    ):
        load(copied)
