// The models as an AI pack of Google Play: src/main/assets/cspedge/bundle, delivered when the app asks for it.
plugins {
    alias(libs.plugins.android.ai.pack)
}

aiPack {
    packName = "pack"
    dynamicDelivery {
        deliveryType = "on-demand"
    }
}
