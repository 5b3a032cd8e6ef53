// The runtimes, the decoding of images and, where no AI pack brings them, the models: src/main/assets/cspedge/bundle.
plugins {
    alias(libs.plugins.android.library)
    alias(libs.plugins.kotlin.android)
}

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
}

kotlin {
    explicitApi()
    jvmToolchain(17)
}

dependencies {
    api(project(":core"))
    implementation(libs.androidx.annotation)
    implementation(libs.executorch.android)
    implementation(libs.onnxruntime.android)
}
