@_exported import BackgroundAssets

public protocol StoreDownloaderExtension {
    init()
    func shouldDownload(_ assetPack: AssetPack) -> Bool
}

extension StoreDownloaderExtension {
    public func shouldDownload(_ assetPack: AssetPack) -> Bool { fatalError() }
    public static func main() { fatalError() }
}
