@_exported import CoreGraphics
@_exported import Observation
import UIKit

// Views

@MainActor @preconcurrency public protocol View {
    associatedtype Body: View
    @ViewBuilder @MainActor @preconcurrency var body: Body { get }
}

extension Never: View {
    public var body: Never { fatalError() }
}

@MainActor @preconcurrency public protocol Leaf: View where Body == Never {}
extension Leaf {
    public var body: Never { fatalError() }
}

public struct EmptyView: Leaf {}
public struct Several<each Content: View>: Leaf {
    init(_ content: repeat each Content) {}
}
public struct Either<First: View, Second: View>: Leaf {}
extension Optional: View where Wrapped: View {
    public var body: Never { fatalError() }
}

@resultBuilder public enum ViewBuilder {
    public static func buildBlock() -> EmptyView { fatalError() }
    public static func buildBlock<Content: View>(_ content: Content) -> Content { content }
    @_disfavoredOverload
    public static func buildBlock<each Content: View>(_ content: repeat each Content) -> Several<repeat each Content> {
        fatalError()
    }
    public static func buildIf<Content: View>(_ content: Content?) -> Content? { content }
    public static func buildEither<A: View, B: View>(first: A) -> Either<A, B> { fatalError() }
    public static func buildEither<A: View, B: View>(second: B) -> Either<A, B> { fatalError() }
    public static func buildExpression<Content: View>(_ content: Content) -> Content { content }
}

// State

@propertyWrapper public struct State<Value>: @unchecked Sendable {
    public init(wrappedValue: Value) { fatalError() }
    public init() where Value: ExpressibleByNilLiteral { fatalError() }
    public var wrappedValue: Value {
        get { fatalError() }
        nonmutating set {}
    }
    public var projectedValue: Binding<Value> { fatalError() }
}

@propertyWrapper public struct Binding<Value>: @unchecked Sendable {
    public init(projectedValue: Binding<Value>) { fatalError() }
    public var wrappedValue: Value {
        get { fatalError() }
        nonmutating set {}
    }
}

public struct EnvironmentValues {
    public var dismiss: DismissAction { fatalError() }
}

@MainActor public struct DismissAction {
    public func callAsFunction() {}
}

@propertyWrapper public struct Environment<Value>: @unchecked Sendable {
    public init(_ path: KeyPath<EnvironmentValues, Value>) { fatalError() }
    public var wrappedValue: Value { fatalError() }
}

// App

@MainActor @preconcurrency public protocol Scene {}
@resultBuilder public enum SceneBuilder {
    public static func buildBlock<Content: Scene>(_ content: Content) -> Content { content }
}
@MainActor @preconcurrency public protocol App {
    associatedtype Body: Scene
    @SceneBuilder @MainActor @preconcurrency var body: Body { get }
    @MainActor @preconcurrency init()
}
extension App {
    @MainActor @preconcurrency public static func main() {}
}
public struct WindowGroup<Content: View>: Scene {
    public init(@ViewBuilder content: () -> Content) { fatalError() }
}

// Controls and containers

public struct Text: Leaf {
    public init<S: StringProtocol>(_ content: S) { fatalError() }
    public func font(_ font: Font?) -> Text { self }
    public func monospacedDigit() -> Text { self }
}
public struct Image: Leaf {
    public init(systemName: String) { fatalError() }
    public init(uiImage: UIImage) { fatalError() }
    public func resizable() -> Image { self }
}
public struct Label: Leaf {
    public init<S: StringProtocol>(_ title: S, systemImage: String) { fatalError() }
}
public struct Spacer: Leaf { public init() {} }
public struct ProgressView: Leaf {
    public init<S: StringProtocol>(_ title: S) { fatalError() }
    public init<V: BinaryFloatingPoint>(value: V?, total: V = 1) { fatalError() }
}
public struct ButtonRole: Sendable {
    public static let cancel = ButtonRole()
}
public struct Button: Leaf {
    public init<S: StringProtocol>(_ title: S, role: ButtonRole?, action: @escaping @MainActor () -> Void) {
        fatalError()
    }
    public init<S: StringProtocol>(_ title: S, systemImage: String, action: @escaping @MainActor () -> Void) {
        fatalError()
    }
}
public struct LabeledContent: Leaf {
    public init<S: StringProtocol, V: StringProtocol>(_ title: S, value: V) { fatalError() }
}
public struct List<Content: View>: Leaf {
    public init(@ViewBuilder content: () -> Content) { fatalError() }
}
public struct Section<Content: View>: Leaf {
    public init(@ViewBuilder content: () -> Content) { fatalError() }
    public init<S: StringProtocol>(_ title: S, @ViewBuilder content: () -> Content) { fatalError() }
}
public struct NavigationStack<Content: View>: Leaf {
    public init(@ViewBuilder root: () -> Content) { fatalError() }
}
public struct TabView<Content: View>: Leaf {
    public init(@ViewBuilder content: () -> Content) { fatalError() }
}
public struct ForEach<Data: RandomAccessCollection, ID: Hashable, Content: View>: Leaf {
    public init(_ data: Data, id: KeyPath<Data.Element, ID>, @ViewBuilder content: @escaping (Data.Element) -> Content)
    {
        fatalError()
    }
    public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content)
    where Data.Element: Identifiable, ID == Data.Element.ID { fatalError() }
}
public struct Picker<Selection: Hashable, Content: View>: Leaf {
    public init<S: StringProtocol>(_ title: S, selection: Binding<Selection>, @ViewBuilder content: () -> Content) {
        fatalError()
    }
}
public enum HorizontalAlignment: Sendable { case leading, center }
public enum VerticalAlignment: Sendable { case center, firstTextBaseline }
public enum Alignment: Sendable { case bottom, center }
public struct VStack<Content: View>: Leaf {
    public init(alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content)
    {
        fatalError()
    }
}
public struct HStack<Content: View>: Leaf {
    public init(alignment: VerticalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content) {
        fatalError()
    }
}
public struct ZStack<Content: View>: Leaf {
    public init(alignment: Alignment = .center, @ViewBuilder content: () -> Content) { fatalError() }
}
public enum ToolbarItemPlacement: Sendable { case primaryAction }
public struct ToolbarItemGroup<Content: View>: Leaf {
    public init(placement: ToolbarItemPlacement, @ViewBuilder content: () -> Content) { fatalError() }
}

// Modifiers

public struct Font: Sendable {
    public static let footnote = Font(), largeTitle = Font()
}
public protocol ShapeStyle: Sendable {}
public struct HierarchicalShapeStyle: ShapeStyle {}
public struct Color: ShapeStyle {
    public static let green = Color(), red = Color()
}
public struct Material: ShapeStyle {}
extension ShapeStyle where Self == HierarchicalShapeStyle {
    public static var secondary: HierarchicalShapeStyle { fatalError() }
}
extension ShapeStyle where Self == Material {
    public static var regularMaterial: Material { fatalError() }
}
extension ShapeStyle where Self == Color {
    public static var green: Color { fatalError() }
    public static var red: Color { fatalError() }
}
public enum TextAlignment: Sendable { case center }
public struct AccessibilityChildBehavior: Sendable {
    public static let ignore = AccessibilityChildBehavior(), combine = AccessibilityChildBehavior()
}
public protocol LabelStyle {}
public struct IconOnlyLabelStyle: LabelStyle {}
extension LabelStyle where Self == IconOnlyLabelStyle {
    public static var iconOnly: IconOnlyLabelStyle { fatalError() }
}

extension View {
    public func task(_ action: @escaping @Sendable @MainActor () async -> Void) -> some View { self }
    public func tabItem<V: View>(@ViewBuilder _ label: () -> V) -> some View { self }
    public func font(_ font: Font?) -> some View { self }
    public func foregroundStyle<S: ShapeStyle>(_ style: S) -> some View { self }
    public func background<S: ShapeStyle>(_ style: S) -> some View { self }
    public func multilineTextAlignment(_ alignment: TextAlignment) -> some View { self }
    public func padding() -> some View { self }
    public func frame(maxWidth: CGFloat? = nil, maxHeight: CGFloat? = nil) -> some View { self }
    public func scaledToFit() -> some View { self }
    public func ignoresSafeArea() -> some View { self }
    public func disabled(_ disabled: Bool) -> some View { self }
    public func labelStyle<S: LabelStyle>(_ style: S) -> some View { self }
    public func tag<V: Hashable>(_ tag: V) -> some View { self }
    public func navigationTitle<S: StringProtocol>(_ title: S) -> some View { self }
    public func toolbar<Content: View>(@ViewBuilder content: () -> Content) -> some View { self }
    public func onChange<V: Equatable>(of value: V, _ action: @escaping @MainActor (V, V) -> Void) -> some View { self }
    public func onDisappear(perform action: @escaping @MainActor () -> Void) -> some View { self }
    public func fullScreenCover<Content: View>(
        isPresented: Binding<Bool>, @ViewBuilder content: @escaping () -> Content
    ) -> some View { self }
    public func accessibilityHidden(_ hidden: Bool) -> some View { self }
    public func accessibilityLabel<S: StringProtocol>(_ label: S) -> some View { self }
    public func accessibilityElement(children: AccessibilityChildBehavior) -> some View { self }
}

@MainActor @preconcurrency public protocol UIViewRepresentable: View where Body == Never {
    associatedtype UIViewType: UIView
    typealias Context = UIViewRepresentableContext<Self>
    @MainActor @preconcurrency func makeUIView(context: Context) -> UIViewType
    @MainActor @preconcurrency func updateUIView(_ uiView: UIViewType, context: Context)
}
extension UIViewRepresentable {
    public var body: Never { fatalError() }
}
public struct UIViewRepresentableContext<Representable: UIViewRepresentable> {}
