package cspedge.app

import android.content.Context
import cspedge.core.BundleSource
import cspedge.models.assetSource

/** The models came with the app. */
fun bundleSource(context: Context, report: (String) -> Unit): BundleSource = assetSource(context)
