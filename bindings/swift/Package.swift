// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "Esolm",
    platforms: [.macOS(.v12), .iOS(.v15)],
    products: [.library(name: "Esolm", targets: ["Esolm"])],
    targets: [
        // The installed C library (`make install`), which is found with pkg-config.
        .systemLibrary(name: "EsolmSystem", pkgConfig: "esolm"),
        .target(name: "Esolm", dependencies: ["EsolmSystem"]),
        .testTarget(name: "EsolmTests", dependencies: ["Esolm"]),
    ]
)
