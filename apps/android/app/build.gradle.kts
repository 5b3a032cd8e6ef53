plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
    alias(libs.plugins.kotlin.compose)
}

val delivery = providers.gradleProperty("cspedge.delivery").getOrElse("apk")

android {
    namespace = "cspedge.app"
    compileSdk = 36

    defaultConfig {
        applicationId = "cspedge.app"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
        // those that both runtimes' libraries are built for
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    buildFeatures {
        compose = true
    }
    // A bundle's files stay as they are in the APK: int8 weights hardly shrink, copying them out needs no inflating,
    // and Play's patches of an update find the same bytes again.
    androidResources {
        noCompress += listOf("pte", "onnx", "rgb", "tensor", "f32", "png", "jpg", "jpeg", "sig", "json", "txt")
    }
    if (delivery == "play-ai-pack") {
        assetPacks += ":pack"
    }
    sourceSets {
        getByName("main").kotlin.srcDir(if (delivery == "play-ai-pack") "src/pack/kotlin" else "src/apk/kotlin")
    }
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    implementation(project(":models"))
    implementation(platform(libs.androidx.compose.bom))
    implementation(libs.androidx.compose.foundation)
    implementation(libs.androidx.compose.material3)
    implementation(libs.androidx.compose.ui)
    implementation(libs.androidx.activity.compose)
    implementation(libs.androidx.core)
    implementation(libs.androidx.lifecycle.runtime.compose)
    implementation(libs.androidx.lifecycle.viewmodel)
    implementation(libs.androidx.camera.camera2)
    implementation(libs.androidx.camera.lifecycle)
    implementation(libs.androidx.camera.view)
    if (delivery == "play-ai-pack") {
        implementation(libs.play.ai.delivery)
    }
    androidTestImplementation(libs.androidx.test.junit)
    androidTestImplementation(libs.androidx.test.runner)
}
