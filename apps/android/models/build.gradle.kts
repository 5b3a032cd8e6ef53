// The runtimes, the decoding of images and, where no AI pack brings them, the models: src/main/assets/cspedge/bundle.
plugins {
    alias(libs.plugins.android.library)
    alias(libs.plugins.kotlin.android)
}

val runtimes = providers.gradleProperty("cspedge.runtimes").getOrElse("executorch,onnxruntime").split(",")

fun source(runtime: String) = "src/${if (runtime in runtimes) runtime else "no-$runtime"}/kotlin"

android {
    namespace = "cspedge.models"
    compileSdk = 36

    defaultConfig {
        minSdk = 26
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    sourceSets {
        getByName("main").kotlin.srcDirs(source("executorch"), source("onnxruntime"))
    }
}

kotlin {
    explicitApi()
    jvmToolchain(17)
}

dependencies {
    api(project(":core"))
    implementation(libs.androidx.annotation)
    if ("executorch" in runtimes) {
        implementation(libs.executorch.android)
    }
    if ("onnxruntime" in runtimes) {
        implementation(libs.onnxruntime.android)
    }
}
