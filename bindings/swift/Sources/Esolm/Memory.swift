import EsolmSystem

/// Copies of arrays for a C call, freed with this object.
final class Scratch {
    private var deallocations: [() -> Void] = []

    /// nil if there are no items.
    func copy<T>(_ items: [T]) -> UnsafePointer<T>? {
        if items.isEmpty { return nil }
        let memory = UnsafeMutablePointer<T>.allocate(capacity: items.count)
        memory.initialize(from: items, count: items.count)
        deallocations.append { memory.deallocate() } // C structs need no deinitialization
        return UnsafePointer(memory)
    }

    deinit {
        for deallocate in deallocations { deallocate() }
    }
}

/// Calls `fill` with a buffer, and again with a larger one if it is too small. C does not count the `extra` elements.
func filled<T>(
    _ zero: T, capacity: Int, extra: Int = 0, _ fill: (UnsafeMutableBufferPointer<T>, inout Int) -> esolm_status
) throws -> [T] {
    var capacity = capacity
    while true {
        var count = 0
        var buffer = [T](repeating: zero, count: capacity + extra)
        let status = buffer.withUnsafeMutableBufferPointer { fill($0, &count) }
        if status == ESOLM_ERR_BUFFER_TOO_SMALL {
            capacity = count
            continue
        }
        try check(status)
        return Array(buffer.prefix(count))
    }
}

/// The same for text, which ends with a NUL.
func filledText(
    capacity: Int, _ fill: (UnsafeMutableBufferPointer<CChar>, inout Int) -> esolm_status
) throws -> String {
    let chars = try filled(0 as CChar, capacity: capacity, extra: 1, fill)
    return String(decoding: chars.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Calls `body` with the UTF-8 bytes of a text, without a NUL.
func withChars<R>(_ text: String, _ body: (UnsafeBufferPointer<CChar>) throws -> R) rethrows -> R {
    var text = text
    return try text.withUTF8 { bytes in
        try bytes.withMemoryRebound(to: CChar.self) { chars in try body(chars) }
    }
}

/// In C a text ends at its first NUL, so one that has a NUL is an error.
func refuseNUL(_ what: String, _ text: String?) throws {
    if let text, text.utf8.contains(0) {
        throw EsolmError(status: .invalidArgument, message: "\(what) has a NUL")
    }
}

/// Calls `body` with a NUL-terminated text, NULL for nil.
func withOptionalCString<R>(_ text: String?, _ body: (UnsafePointer<CChar>?) throws -> R) rethrows -> R {
    guard let text else { return try body(nil) }
    return try text.withCString { chars in try body(chars) }
}
