package cspedge.models

import cspedge.core.ModelRuntime

/** The bundle has no artifact for it, so the app is spared its library (`cspedge.runtimes`). */
internal fun executorch(): ModelRuntime? = null
