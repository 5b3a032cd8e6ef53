@_exported import Foundation
import System

public struct AssetPack: Sendable {}

public actor AssetPackManager {
    public static let shared = AssetPackManager()
    public func assetPack(withID assetPackID: String) async throws -> AssetPack { fatalError() }
    public func ensureLocalAvailability(of assetPack: AssetPack) async throws { fatalError() }
    nonisolated public func url(for path: FilePath) throws -> URL { fatalError() }
}
