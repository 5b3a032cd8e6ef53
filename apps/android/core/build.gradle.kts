// Pure Kotlin on the JVM's own library, for Android 8 (API 26) and later: java.nio.file and java.util.Base64.
plugins {
    alias(libs.plugins.kotlin.jvm)
}

kotlin {
    explicitApi()
    jvmToolchain(17)
    compilerOptions {
        allWarningsAsErrors = true
    }
}

// The check program of src/test, which Python's tests run: ./gradlew :core:check-jobs -Pjobs=jobs.json
tasks.register<JavaExec>("check-jobs") {
    classpath = sourceSets["test"].runtimeClasspath
    mainClass = "cspedge.core.CheckKt"
    args(providers.gradleProperty("jobs").orElse("jobs.json").get())
}
