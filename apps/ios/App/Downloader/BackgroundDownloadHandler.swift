import BackgroundAssets
import ExtensionFoundation
import StoreKit

/// Lets the system download this app's Apple-hosted asset packs; it does the rest itself.
@main
struct BackgroundDownloadHandler: StoreDownloaderExtension {
    func shouldDownload(_ assetPack: AssetPack) -> Bool { true }
}
