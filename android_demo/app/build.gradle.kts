plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "dev.pocketvl.demo"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        applicationId = "dev.pocketvl.demo"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = 1
        versionName = libs.versions.app.get()
        ndk.abiFilters += listOf("arm64-v8a", "x86_64")
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "rules.pro")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    // Models are mapped out of the APK, which must not compress them.
    androidResources.noCompress += listOf("tflite", "onnx")

    // The bundles that `make export` writes; copy others there.
    sourceSets["main"].assets.srcDir(layout.buildDirectory.dir("bundle-assets"))
}

kotlin {
    jvmToolchain(17)
}

val copyBundles by tasks.registering(Sync::class) {
    listOf("tabletop-clip", "tabletop-vilt").forEach { name ->
        from("../../build/$name") {
            exclude("report.*", "profiles")
            into("bundles/$name")
        }
    }
    into(layout.buildDirectory.dir("bundle-assets"))
}

tasks.named("preBuild") {
    dependsOn(copyBundles)
}

dependencies {
    implementation(project(":core"))
    implementation(project(":engines"))
    implementation(libs.litert)
    implementation(libs.onnxruntime.android)
}
