plugins {
    `java-library`
}

java {
    toolchain.languageVersion.set(JavaLanguageVersion.of(17))
}

// The tests are Maven's: they need nothing of Android.
sourceSets["test"].java.setSrcDirs(emptyList<String>())

dependencies {
    api(libs.jspecify)
    implementation(libs.gson)
}
