// Opens in Android Studio: File, Open, this folder. It wants Gradle 8.13 or newer and JDK 17, and fetches LiteRT, whose
// native libraries fit memory pages of 16 KB, and ONNX Runtime from Google's and Maven's repositories.

pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode.set(RepositoriesMode.FAIL_ON_PROJECT_REPOS)
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "pocketvl-android"
include(":core", ":engines", ":app")
