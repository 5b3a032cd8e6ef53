// AssetPackManager came with the SDKs of Xcode 26, whose compiler is Swift 6.2.
#if canImport(BackgroundAssets) && compiler(>=6.2)
    import BackgroundAssets
    import CspEdgeCore
    import Foundation
    import System

    extension Delivery {
        /// The bundle's folder in its Apple-hosted asset pack, downloaded now where the system has not done so yet.
        ///
        /// KitError modelsMissing before iOS 26; the system's errors. The folder is not to be remembered: its place may
        /// be another in the app's next run.
        public func fetch() async throws -> URL {
            guard #available(iOS 26, macOS 26, *) else {
                throw KitError.modelsMissing("they come as an asset pack, which needs iOS 26")
            }
            let pack = try await AssetPackManager.shared.assetPack(withID: assetPackID)
            try await AssetPackManager.shared.ensureLocalAvailability(of: pack)
            return try AssetPackManager.shared.url(for: FilePath(path))
        }
    }
#else
    import Foundation

    extension Delivery {
        /// KitError modelsMissing: this SDK has no asset packs.
        public func fetch() async throws -> URL {
            throw KitError.modelsMissing("they come as an asset pack, and this app was built without AssetPackManager")
        }
    }
#endif
