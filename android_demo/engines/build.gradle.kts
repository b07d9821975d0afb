plugins {
    `java-library`
}

java {
    toolchain.languageVersion.set(JavaLanguageVersion.of(17))
}

sourceSets["test"].java.setSrcDirs(emptyList<String>())

// Only the Java classes of the two engines: a plain Java module cannot depend on AARs. The app brings the AARs themselves.
val aarClasses: Configuration by configurations.creating

val openAars by tasks.registering(Sync::class) {
    aarClasses.forEach { aar -> from(zipTree(aar)) { include("classes.jar") { rename { "${aar.nameWithoutExtension}.jar" } } } }
    into(layout.buildDirectory.dir("aar-classes"))
}

dependencies {
    api(project(":core"))
    aarClasses(libs.litert) { artifact { type = "aar" } }
    aarClasses(libs.onnxruntime.android) { artifact { type = "aar" } }
    compileOnly(fileTree(layout.buildDirectory.dir("aar-classes")) { builtBy(openAars) })
}
