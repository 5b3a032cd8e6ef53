@_exported import Foundation
import SwiftUI

public struct PHPickerFilter: Sendable {
    public static let images = PHPickerFilter()
}

public struct PhotosPickerItem: Equatable, Sendable {
    public func loadTransferable<T: Sendable>(type: T.Type) async throws -> T? { fatalError() }
}

public struct PhotosPicker<Content: View>: Leaf {
    public init(
        selection: Binding<PhotosPickerItem?>, matching filter: PHPickerFilter? = nil,
        @ViewBuilder label: () -> Content
    ) { fatalError() }
}
