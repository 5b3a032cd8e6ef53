import SwiftUI
import UIKit

/// The app that the tests run in: a device runs no tests without one. It keeps the screen on and does nothing itself.
@main
struct RunnerApp: App {
    var body: some Scene {
        WindowGroup {
            Text("cspedge is measuring. Leave the device on this screen.")
                .padding()
                .task { UIApplication.shared.isIdleTimerDisabled = true }
        }
    }
}
