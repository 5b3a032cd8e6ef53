import CspEdgeCore
import Foundation

/// A bundle that reaches the device after the app: `delivery.json` among an app's resources.
public struct Delivery: Codable, Equatable, Sendable {
    /// Of the bundle.
    public let name: String
    public let assetPackID: String
    /// Of the bundle's folder in the pack.
    public let path: String
}

/// The bundle in force.
public struct OpenedBundle: Sendable {
    public let bundle: ModelBundle
    /// Why a delivered bundle was not taken and the one before it stays; nil where all is well.
    public let notTaken: String?
}

/// Where an app's models are: a folder of resources with `public.pem` and either the bundle's folder or
/// `delivery.json`. `cspedge bundle --app ios` makes it.
public struct ModelSource: Sendable {
    private enum Place: Sendable {
        case inApp(URL)
        case delivered(Delivery, store: URL)
    }

    private let key: VerifyingKey
    private let place: Place

    /// support: a folder of the app's own for delivered bundles. KitError modelsMissing; Refusal for a key that is none.
    public init(resources: URL, support: URL) throws {
        let files = FileManager.default
        let pem = resources.appendingPathComponent("public.pem")
        guard files.fileExists(atPath: pem.path) else {
            throw KitError.modelsMissing("there is no public.pem among its resources")
        }
        key = try VerifyingKey(pem: try String(contentsOf: pem, encoding: .utf8))
        let delivery = resources.appendingPathComponent("delivery.json")
        if files.fileExists(atPath: delivery.path) {
            guard let delivery = try? JSONDecoder().decode(Delivery.self, from: try Data(contentsOf: delivery)) else {
                throw KitError.modelsMissing("delivery.json does not say what they are delivered by")
            }
            place = .delivered(delivery, store: support.appendingPathComponent(delivery.name))
            return
        }
        let bundles = try files.contentsOfDirectory(at: resources, includingPropertiesForKeys: nil).filter {
            files.fileExists(atPath: $0.appendingPathComponent("manifest.json").path)
        }
        guard let bundle = bundles.first, bundles.count == 1 else {
            throw KitError.modelsMissing("there are \(bundles.count) bundles among its resources, and one is needed")
        }
        place = .inApp(bundle)
    }

    /// The bundle in force, with its signature and bytes checked.
    ///
    /// In the app it is the one that came with it. A delivered one is fetched, and where it is not the one that is
    /// installed, put through all checks of `BundleStore.accept`; the one before it stays where they fail.
    /// fetch: gives the folder that a delivery puts on the device.
    public func open(
        runtime: any ModelRuntime, fetch: @Sendable (Delivery) async throws -> URL
    ) async throws -> OpenedBundle {
        let opened: OpenedBundle
        switch place {
        case .inApp(let folder):
            opened = OpenedBundle(bundle: try ModelBundle(folder: folder, key: key), notTaken: nil)
        case .delivered(let delivery, let root):
            let store = BundleStore(root: root, name: delivery.name, key: key)
            opened = try await take(delivery, into: store, runtime, fetch)
        }
        try await runtime.keepOnly(opened.bundle.manifest)
        return opened
    }

    private func take(
        _ delivery: Delivery, into store: BundleStore, _ runtime: any ModelRuntime,
        _ fetch: @Sendable (Delivery) async throws -> URL
    ) async throws -> OpenedBundle {
        let before: ModelBundle?
        do {
            before = try await store.installed()
        } catch is Refusal {  // damaged since: the same version may take its place
            before = nil
        }
        do {
            let folder = try await fetch(delivery)
            if let before, try isInstalled(folder, before) {
                return OpenedBundle(bundle: before, notTaken: nil)
            }
            return OpenedBundle(bundle: try await store.accept(folder, runtime: runtime).bundle, notTaken: nil)
        } catch {
            guard let before else { throw error }
            return OpenedBundle(bundle: before, notTaken: error.localizedDescription)
        }
    }

    /// Whether a folder has the manifest that is installed, to the byte, and so the same files: then there is nothing to
    /// take. Nothing is read from a manifest before its signature was checked.
    private func isInstalled(_ folder: URL, _ installed: ModelBundle) throws -> Bool {
        let digests = try [folder, installed.folder].map { folder in
            let manifest = folder.appendingPathComponent("manifest.json")
            return FileManager.default.fileExists(atPath: manifest.path) ? try sha256(fileAt: manifest) : nil
        }
        return digests[0] != nil && digests[0] == digests[1]
    }
}
