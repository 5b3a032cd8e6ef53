pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode = RepositoriesMode.FAIL_ON_PROJECT_REPOS
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "cspedge"

include(":core")
include(":models")
include(":app")
if (providers.gradleProperty("cspedge.delivery").orNull == "play-ai-pack") {
    include(":pack")
}
