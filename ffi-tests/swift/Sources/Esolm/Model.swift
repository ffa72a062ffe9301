import EsolmSystem

/// What went wrong: an `ESOLM_ERR_` value and a sentence for people.
public struct EsolmError: Error, CustomStringConvertible {
    public let status: Int32
    public let message: String
    public var description: String { message }
}

/// To be used on the thread of the call, whose last error it reads.
func check(_ status: esolm_status) throws {
    guard status == ESOLM_OK else {
        throw EsolmError(status: status, message: String(cString: esolm_last_error()))
    }
}

/// The library's version, such as "0.1.0".
public func version() -> String { String(cString: esolm_version()) }

/// An open model. Immutable: any number of threads and tasks may use it at once.
public final class Model: @unchecked Sendable {
    let handle: OpaquePointer

    /// Opens a GGUF file. The device is "cpu", "cuda:0", or nil: the first GPU, else the CPU.
    public init(path: String, device: String? = nil, copied: Bool = false) throws {
        var params = esolm_model_params()
        try check(esolm_model_params_init(&params, MemoryLayout<esolm_model_params>.stride))
        params.mode = Int32(copied ? ESOLM_MODE_COPY : ESOLM_MODE_MAP)
        var opened: OpaquePointer?
        if let device {
            try device.withCString { name in
                params.device = name
                try check(esolm_model_open(path, &params, &opened))
            }
        } else {
            try check(esolm_model_open(path, &params, &opened))
        }
        handle = opened!
    }

    deinit { esolm_model_free(handle) }

    public struct Info: Sendable {
        public let contextLength: Int
        public let vocabSize: Int
        public let maskToken: UInt32
        /// nil if there is none.
        public let eosToken: UInt32?
        public let parameters: UInt64
        public let fileBytes: UInt64
    }

    public func info() throws -> Info {
        var info = esolm_model_info()
        info.struct_size = MemoryLayout<esolm_model_info>.stride
        try check(esolm_model_info_get(handle, &info))
        return Info(
            contextLength: info.context_length, vocabSize: info.vocab_size, maskToken: info.mask_token,
            eosToken: info.eos_token < 0 ? nil : UInt32(info.eos_token), parameters: info.parameters,
            fileBytes: info.file_bytes)
    }

    /// The value of a key of the file's metadata.
    public func metadata(_ key: String) throws -> String {
        try text(capacity: 128) { text, n in
            esolm_model_metadata_get(self.handle, key, text.baseAddress, text.count, &n)
        }
    }

    /// The bytes of one token, which may be a part of a character.
    public func bytes(of token: UInt32) throws -> [UInt8] {
        try filled(0, capacity: 32) { bytes, n in
            esolm_token_bytes(self.handle, token, bytes.baseAddress, bytes.count, &n)
        }
    }

    public func tokenize(_ text: String) throws -> [UInt32] {
        var text = text
        return try text.withUTF8 { bytes in
            try bytes.withMemoryRebound(to: CChar.self) { chars in
                try filled(0, capacity: chars.count / 2 + 8) { tokens, n in
                    esolm_tokenize(self.handle, chars.baseAddress, chars.count, tokens.baseAddress, tokens.count, &n)
                }
            }
        }
    }

    public func detokenize(_ tokens: [UInt32]) throws -> String {
        try text(capacity: 4 * tokens.count) { text, n in
            esolm_detokenize(self.handle, tokens, tokens.count, text.baseAddress, text.count, &n)
        }
    }
}

/// Calls `fill` with a buffer that is large enough, and again if it was not; `extra` elements are not counted.
func filled<T>(
    _ zero: T, capacity: Int, extra: Int = 0, _ fill: (inout UnsafeMutableBufferPointer<T>, inout Int) -> esolm_status
) throws -> [T] {
    var capacity = capacity
    while true {
        var count = 0
        var buffer = [T](repeating: zero, count: capacity + extra)
        let status = buffer.withUnsafeMutableBufferPointer { fill(&$0, &count) }
        if status == ESOLM_ERR_BUFFER_TOO_SMALL {
            capacity = count
            continue
        }
        try check(status)
        return Array(buffer.prefix(count))
    }
}

/// The same for text, which has a NUL behind it.
func text(
    capacity: Int, _ fill: (inout UnsafeMutableBufferPointer<CChar>, inout Int) -> esolm_status
) throws -> String {
    let chars = try filled(0 as CChar, capacity: capacity, extra: 1, fill)
    return String(decoding: chars.map(UInt8.init(bitPattern:)), as: UTF8.self)
}
