"""What the build takes from Maven Central. Versions stand once, as properties of android_demo/pom.xml."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from android_demo.packaging.toolchain import BuildError, run

POM = Path(__file__).parents[1] / "pom.xml"
_NAMESPACE = "{http://maven.apache.org/POM/4.0.0}"


@dataclass(frozen=True)
class Artifact:
    """A file of Maven Central, whose version is a property of the parent POM."""

    group: str
    name: str
    property: str
    type: str = "jar"

    def file_name(self, versions: dict[str, str]) -> str:
        """Its name after fetching."""
        return f"{self.name}-{versions[self.property]}.{self.type}"


KOTLIN_COMPILER = Artifact("org.jetbrains.kotlin", "kotlin-compiler-embeddable", "kotlin.version")
KOTLIN_STDLIB = Artifact("org.jetbrains.kotlin", "kotlin-stdlib", "kotlin.version")
R8 = Artifact("com.android.tools", "r8", "r8.version")
ANDROID = Artifact("org.robolectric", "android-all", "android.compile.version")
ANDROID_RESOURCES = Artifact("org.robolectric", "android-all", "android.resources.version")
TFLITE = Artifact("org.tensorflow", "tensorflow-lite", "tensorflow-lite.version", "aar")
TFLITE_API = Artifact("org.tensorflow", "tensorflow-lite-api", "tensorflow-lite.version", "aar")
GSON = Artifact("com.google.code.gson", "gson", "gson.version")
JSPECIFY = Artifact("org.jspecify", "jspecify", "jspecify.version")
ONNXRUNTIME = Artifact("com.microsoft.onnxruntime", "onnxruntime", "onnxruntime.version")

LIBRARIES = (KOTLIN_STDLIB, TFLITE, TFLITE_API, GSON, JSPECIFY)


def read_versions(pom: Path = POM) -> dict[str, str]:
    """The properties of the parent POM."""
    properties = ElementTree.parse(pom).getroot().find(f"{_NAMESPACE}properties")
    if properties is None:
        raise BuildError(f"{pom} has no properties: restore it")
    return {child.tag.removeprefix(_NAMESPACE): (child.text or "").strip() for child in properties}


def fetch(artifacts: tuple[Artifact, ...], folder: Path) -> dict[Artifact, Path]:
    """Copy artifacts into a folder by one run of Maven; nothing happens if all are there.

    The Kotlin compiler comes with what it needs, into a folder of its own.
    """
    versions = read_versions()
    found = {artifact: folder / artifact.file_name(versions) for artifact in artifacts}
    compiler = folder / f"kotlin-compiler-{versions[KOTLIN_COMPILER.property]}"
    if all(path.exists() for path in found.values()) and (KOTLIN_COMPILER not in found or compiler.exists()):
        return {**found, **({KOTLIN_COMPILER: compiler} if KOTLIN_COMPILER in found else {})}
    folder.mkdir(parents=True, exist_ok=True)
    pom = folder / "pom.xml"
    pom.write_text(_fetching_pom(artifacts, versions, folder, compiler), encoding="utf-8")
    goals = ["dependency:copy@artifacts"]
    if KOTLIN_COMPILER in found:
        goals.append("dependency:copy-dependencies@compiler")
        found[KOTLIN_COMPILER] = compiler
    run("fetching from Maven Central", "mvn", "-q", "-B", "-f", pom, *goals)
    return found


def _fetching_pom(
    artifacts: tuple[Artifact, ...], versions: dict[str, str], folder: Path, compiler: Path
) -> str:
    def coordinates(artifact: Artifact) -> str:
        return (
            f"<groupId>{artifact.group}</groupId><artifactId>{artifact.name}</artifactId>"
            f"<version>{versions[artifact.property]}</version><type>{artifact.type}</type>"
        )

    items = "".join(f"<artifactItem>{coordinates(artifact)}</artifactItem>" for artifact in artifacts)
    plugin = (
        f"<artifactId>maven-dependency-plugin</artifactId><version>{versions['dependency-plugin.version']}</version><executions>"
        f"<execution><id>artifacts</id><configuration><outputDirectory>{folder}</outputDirectory>"
        f"<artifactItems>{items}</artifactItems></configuration></execution>"
        f"<execution><id>compiler</id><configuration><outputDirectory>{compiler}</outputDirectory></configuration></execution>"
        "</executions>"
    )
    return (
        f'<project xmlns="{_NAMESPACE.strip("{}")}"><modelVersion>4.0.0</modelVersion>'
        "<groupId>dev.pocketvl</groupId><artifactId>fetch</artifactId><version>0</version><packaging>pom</packaging>"
        f"<dependencies><dependency>{coordinates(KOTLIN_COMPILER)}</dependency></dependencies>"
        f"<build><plugins><plugin>{plugin}</plugin></plugins></build></project>"
    )


@dataclass(frozen=True)
class OpenedAar:
    """An Android archive, unpacked."""

    classes: Path
    libraries: Path | None
    rules: Path | None


def open_aar(aar: Path, folder: Path) -> OpenedAar:
    """Unpack an AAR: classes, native libraries (a folder for each processor), rules for shrinking."""
    target = folder / aar.stem
    try:
        with zipfile.ZipFile(aar) as archive:
            names = [
                n for n in archive.namelist() if n in {"classes.jar", "proguard.txt"} or n.startswith("jni/")
            ]
            if "classes.jar" not in names:
                raise BuildError(f"{aar} holds no classes.jar: is it an AAR?")
            archive.extractall(target, names)
    except (OSError, zipfile.BadZipFile) as error:
        raise BuildError(f"{aar} cannot be opened as an AAR ({error}): name another file") from error
    jni, rules = target / "jni", target / "proguard.txt"
    return OpenedAar(
        target / "classes.jar", jni if jni.is_dir() else None, rules if rules.is_file() else None
    )
