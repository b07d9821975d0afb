"""The Gradle project and docs/ANDROID.md, as far as they can be checked without Gradle."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from android_demo.packaging.artifacts import read_versions

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "android_demo"
SCRIPTS = (
    "settings.gradle.kts",
    "build.gradle.kts",
    "core/build.gradle.kts",
    "engines/build.gradle.kts",
    "app/build.gradle.kts",
)


@pytest.fixture(scope="module")
def catalogue() -> dict[str, dict[str, object]]:
    return tomllib.loads((PROJECT / "gradle" / "libs.versions.toml").read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "maven"),
    [
        ("kotlin", "kotlin.version"),
        ("gson", "gson.version"),
        ("jspecify", "jspecify.version"),
        ("onnxruntime", "onnxruntime.version"),
        ("minSdk", "android.min"),
        ("targetSdk", "android.target"),
        ("app", "app.version"),
    ],
)
def test_gradle_and_maven_name_one_version(
    catalogue: dict[str, dict[str, object]], name: str, maven: str
) -> None:
    assert catalogue["versions"][name] == read_versions()[maven]


def test_scripts_use_what_the_catalogue_has_and_all_of_it(catalogue: dict[str, dict[str, object]]) -> None:
    text = "".join((PROJECT / script).read_text("utf-8") for script in SCRIPTS)
    used = set(re.findall(r"\blibs\.((?:versions|plugins)?\.?[\w.]+?)(?=\.get\(|\)|\s)", text))
    libraries = {name.replace("-", ".") for name in catalogue["libraries"]}
    plugins = {"plugins." + name.replace("-", ".") for name in catalogue["plugins"]}
    sdk = {f"versions.{name}" for name in ("compileSdk", "minSdk", "targetSdk", "app")}
    assert used == libraries | plugins | sdk


def test_every_version_reference_of_the_catalogue_exists(catalogue: dict[str, dict[str, object]]) -> None:
    for entry in (*catalogue["libraries"].values(), *catalogue["plugins"].values()):
        assert isinstance(entry, dict)
        assert entry["version"]["ref"] in catalogue["versions"]


def test_modules_of_gradle_are_folders_with_sources() -> None:
    settings = (PROJECT / "settings.gradle.kts").read_text("utf-8")
    modules = re.findall(r'":(\w+)"', settings)
    assert modules == ["core", "engines", "app"]
    for module in modules:
        assert (PROJECT / module / "build.gradle.kts").is_file()
        assert (PROJECT / module / "src" / "main").is_dir()


def test_gradle_scripts_have_no_syntax_error(tmp_path: Path) -> None:
    fetched = ROOT / "build/android/fetched"
    compiler = fetched / f"kotlin-compiler-{read_versions()['kotlin.version']}"
    if not compiler.is_dir():
        pytest.skip("the Kotlin compiler is not here: make android fetches it")
    (tmp_path / "Broken.kt").write_text("fun broken() {\nval = 3\n}\n")
    for number, script in enumerate(SCRIPTS):
        (tmp_path / f"Script{number}.kt").write_text(
            f"fun script{number}() {{\n{(PROJECT / script).read_text('utf-8')}}}\n"
        )
    command = [
        "java",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        f"{compiler}/*",
        "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler",
    ]
    result = subprocess.run(
        [*command, "-no-stdlib", "-no-reflect", "-d", str(tmp_path / "out"), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    wrong = {
        line.split(":")[0].rsplit("/", 1)[-1] for line in result.stderr.splitlines() if "syntax error" in line
    }
    assert wrong == {"Broken.kt"}, result.stderr


def test_python_runs_the_tflite_that_the_apk_holds() -> None:
    version = read_versions()["tensorflow-lite.version"]
    assert f"\ntensorflow-cpu=={version} " in (ROOT / "requirements/old_engine.txt").read_text("utf-8")


def test_the_manifest_leaves_to_gradle_what_gradle_refuses_in_it() -> None:
    manifest = (PROJECT / "app/src/main/AndroidManifest.xml").read_text("utf-8")
    assert "package=" not in manifest
    assert "uses-sdk" not in manifest
    assert "extractNativeLibs" not in manifest
    assert "android.permission.INTERNET" not in manifest


def test_the_sample_of_the_docs_is_the_one_that_is_compiled_and_run() -> None:
    source = (PROJECT / "app/src/test/kotlin/dev/pocketvl/demo/Sample.kt").read_text("utf-8")
    sample = source[source.index("/** Which of") :].strip()
    assert f"```kotlin\n{sample}\n```" in (ROOT / "docs/ANDROID.md").read_text("utf-8")


def test_every_string_of_the_app_is_used_and_every_used_one_exists() -> None:
    main = PROJECT / "app/src/main"
    values = (main / "res/values/strings.xml").read_text("utf-8")
    named = set(re.findall(r'<(?:string|plurals) name="(\w+)"', values))
    sources = [main / "AndroidManifest.xml", *main.rglob("*.kt"), *(main / "res/layout").glob("*.xml")]
    text = "".join(path.read_text("utf-8") for path in sources)
    assert set(re.findall(r"(?:R\.(?:string|plurals)\.|@string/)(\w+)", text)) == named
