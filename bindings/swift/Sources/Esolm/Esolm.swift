// esolm for Swift. esolm.h is the reference. These functions of it have no counterpart:
//
// - esolm_generate: Context.generate and Context.steps call esolm_step for each step.
// - esolm_context_new_in and esolm_context_arena_size: a context allocates its own memory.
// - esolm_model_retain: Swift counts references.
// - esolm_tokenize and esolm_tokenize_template: Model.tokenize and Model.template call the functions with parameters.
// - esolm_abi_version: it is part of the shared library's name.

import EsolmSystem
import Foundation

/// A kind of error; esolm.h explains them. Later versions may have more.
public struct Status: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    public static let invalidArgument = Status(rawValue: ESOLM_ERR_INVALID_ARGUMENT)
    public static let io = Status(rawValue: ESOLM_ERR_IO)
    public static let badFile = Status(rawValue: ESOLM_ERR_BAD_FILE)
    public static let unsupported = Status(rawValue: ESOLM_ERR_UNSUPPORTED)
    public static let device = Status(rawValue: ESOLM_ERR_DEVICE)
    public static let outOfMemory = Status(rawValue: ESOLM_ERR_OUT_OF_MEMORY)
    public static let cancelled = Status(rawValue: ESOLM_ERR_CANCELLED)
    public static let busy = Status(rawValue: ESOLM_ERR_BUSY)
    public static let bufferTooSmall = Status(rawValue: ESOLM_ERR_BUFFER_TOO_SMALL)
    public static let tokenizer = Status(rawValue: ESOLM_ERR_TOKENIZER)
    public static let notFinite = Status(rawValue: ESOLM_ERR_NOT_FINITE)
    public static let `internal` = Status(rawValue: ESOLM_ERR_INTERNAL)

    public var description: String { String(cString: esolm_status_text(rawValue)) }
}

/// An error of the library: its kind and a message.
public struct EsolmError: Error, CustomStringConvertible, Sendable {
    public let status: Status
    public let message: String
    public var description: String { message }
}

/// Throws if a C call failed. Use it on the thread of the call: error messages are stored per thread.
func check(_ status: esolm_status) throws {
    guard status == ESOLM_OK else {
        throw EsolmError(status: Status(rawValue: status), message: String(cString: esolm_last_error()))
    }
}

/// The library's version, such as "0.1.0".
public func version() -> String { String(cString: esolm_version()) }

/// A line about the library and this machine, for reports of bugs: version, kernels, instruction sets, threads, ggml.
public func systemInfo() -> String { String(cString: esolm_system_info()) }

/// A device that can run models.
public struct Device: Sendable {
    public enum Kind: Sendable {
        case cpu, gpu, other
    }
    /// The name for `ModelOptions.device`.
    public let name: String
    public let description: String
    public let kind: Kind
    /// In bytes, as reported by the device.
    public let memoryFree: UInt64
    public let memoryTotal: UInt64

    init(_ info: esolm_device_info) {
        name = withUnsafeBytes(of: info.name) { Device.text($0) }
        description = withUnsafeBytes(of: info.description) { Device.text($0) }
        switch info.kind {
        case ESOLM_DEVICE_CPU: kind = .cpu
        case ESOLM_DEVICE_GPU: kind = .gpu
        default: kind = .other // ESOLM_DEVICE_OTHER, and what later versions may add
        }
        memoryFree = info.memory_free
        memoryTotal = info.memory_total
    }

    static func text(_ bytes: UnsafeRawBufferPointer) -> String {
        String(decoding: bytes.prefix(while: { $0 != 0 }), as: UTF8.self)
    }
}

/// The devices of this machine, including the CPU.
public func devices() throws -> [Device] {
    var count = 0
    try check(esolm_device_count(&count))
    return try (0..<count).map { index in
        var info = esolm_device_info()
        info.struct_size = MemoryLayout<esolm_device_info>.stride
        try check(esolm_device_info_get(index, &info))
        return Device(info)
    }
}

/// The severity of a message.
public enum LogLevel: Sendable {
    case error, warn, info, debug

    init(_ level: Int32) {
        switch level {
        case ESOLM_LOG_ERROR: self = .error
        case ESOLM_LOG_WARN: self = .warn
        case ESOLM_LOG_INFO: self = .info
        default: self = .debug // ESOLM_LOG_DEBUG
        }
    }
}

/// Has messages of this level and of more severe ones sent; `info` at first.
public func setLogLevel(_ level: LogLevel) throws {
    let levels: [LogLevel: Int32] = [
        .error: ESOLM_LOG_ERROR, .warn: ESOLM_LOG_WARN, .info: ESOLM_LOG_INFO, .debug: ESOLM_LOG_DEBUG,
    ]
    try check(esolm_set_log_level(levels[level] ?? ESOLM_LOG_INFO))
}

public typealias LogReceiver = @Sendable (LogLevel, String) -> Void

private final class Log: @unchecked Sendable {
    private let lock = NSLock()
    private var receiver: LogReceiver?

    var current: LogReceiver? {
        get {
            lock.lock()
            defer { lock.unlock() }
            return receiver
        }
        set {
            lock.lock()
            defer { lock.unlock() }
            receiver = newValue
        }
    }
}

private let logger = Log()

private func callLog(_ level: Int32, _ message: UnsafePointer<CChar>?, _ data: UnsafeMutableRawPointer?) {
    guard let message, let receive = logger.current else { return }
    receive(LogLevel(level), String(cString: message))
}

/// Has a function called with the library's messages, from any thread and possibly several at once; nil turns them off.
public func setLog(_ receiver: LogReceiver?) {
    logger.current = receiver
    if receiver == nil {
        esolm_set_log_callback(nil, nil)
    } else {
        esolm_set_log_callback(callLog, nil)
    }
}
