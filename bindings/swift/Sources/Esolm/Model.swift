import EsolmSystem

/// Parameters for opening a model.
public struct ModelOptions {
    /// "cpu", "cuda:0"; nil is the first GPU, or the CPU if there is none.
    public var device: String?
    /// Reads the file into memory instead of mapping it.
    public var copied: Bool
    /// Reads quantized matrices that are plain in the file into memory in panels.
    public var repacked: Bool
    /// Called with the fraction of the file that is loaded; may cancel by throwing.
    public var progress: ProgressHandler?
    /// Locks the weights in main memory; if the system refuses, a warning in the log says why.
    public var locked: Bool
    /// Reads a mapped file's pages in now, and not when they are first used.
    public var prefetched: Bool
    /// The mask token of a Qwen2, Qwen3 or WeDLM whose file does not say it, which makes it WeDLM.
    public var maskToken: UInt32?

    public init(
        device: String? = nil, copied: Bool = false, progress: ProgressHandler? = nil, locked: Bool = false,
        prefetched: Bool = false, repacked: Bool = false, maskToken: UInt32? = nil
    ) {
        self.maskToken = maskToken
        self.device = device
        self.copied = copied
        self.repacked = repacked
        self.progress = progress
        self.locked = locked
        self.prefetched = prefetched
    }

    var mode: Int32 { repacked ? ESOLM_MODE_REPACK : copied ? ESOLM_MODE_COPY : ESOLM_MODE_MAP }

    /// Calls `body` with the C struct, whose pointers are valid during the call.
    func with<R>(_ body: (UnsafePointer<esolm_model_params>) -> R) throws -> (R, Callback<ProgressHandler>?) {
        try refuseNUL("the device", device)
        var params = esolm_model_params()
        try check(esolm_model_params_init(&params, MemoryLayout<esolm_model_params>.stride))
        params.mode = mode
        params.use_mlock = locked ? 1 : 0
        params.prefetch = prefetched ? 1 : 0
        if let maskToken {
            params.mask_token = maskToken
            params.has_mask_token = 1
        }
        var callback: Callback<ProgressHandler>?
        if let progress {
            let made = Callback<ProgressHandler>(progress)
            params.progress_callback = callProgress
            params.progress_user_data = made.pointer
            callback = made
        }
        return withExtendedLifetime(callback) {
            withOptionalCString(device) { name in
                params.device = name
                return (body(&params), callback)
            }
        }
    }
}

/// An open model. Immutable: any number of threads and tasks may use it at once.
public final class Model: @unchecked Sendable {
    let handle: OpaquePointer

    /// Opens a GGUF file.
    public init(path: String, _ options: ModelOptions = ModelOptions()) throws {
        try refuseNUL("the path", path)
        handle = try Model.open(options) { params, out in esolm_model_open(path, params, out) }
    }

    /// Opens a model from the bytes of a GGUF file, which are copied.
    public init(bytes: [UInt8], _ options: ModelOptions = ModelOptions()) throws {
        guard !bytes.isEmpty else { throw EsolmError(status: .badFile, message: "the file is empty") }
        var options = options
        options.copied = true
        handle = try Model.open(options) { params, out in
            bytes.withUnsafeBytes { file in esolm_model_open_memory(file.baseAddress, file.count, params, out) }
        }
    }

    /// Opens a model whose file of `size` bytes a function reads: an asset, an entry of an archive, an encrypted file. It is
    /// called from the file's beginning to its end, before the initializer returns. `name` is what messages call the file. (The
    /// field close of C is left out: a file is closed by who has opened it.)
    public init(
        size: UInt64, _ options: ModelOptions = ModelOptions(), name: String? = nil, read: @escaping ReadHandler
    ) throws {
        try refuseNUL("the name", name)
        let callback = Callback<ReadHandler>(read)
        var reader = esolm_model_reader()
        reader.struct_size = MemoryLayout<esolm_model_reader>.stride
        reader.size = size
        reader.read = callRead
        reader.user_data = callback.pointer
        do {
            handle = try withExtendedLifetime(callback) {
                try withOptionalCString(name) { chars in
                    reader.name = chars
                    return try Model.open(options) { params, out in esolm_model_open_reader(&reader, params, out) }
                }
            }
        } catch {
            try callback.check(ESOLM_OK) // the function's own error goes first
            throw error
        }
    }

    /// Opens a model that is in an open file: `length` bytes from `offset` on, 0 being all up to its end. The descriptor may be
    /// closed afterwards.
    public init(
        fileDescriptor: Int32, offset: UInt64 = 0, length: UInt64 = 0, _ options: ModelOptions = ModelOptions()
    ) throws {
        handle = try Model.open(options) { params, out in
            esolm_model_open_fd(fileDescriptor, offset, length, params, out)
        }
    }

    private static func open(
        _ options: ModelOptions,
        _ how: (UnsafePointer<esolm_model_params>, UnsafeMutablePointer<OpaquePointer?>) -> esolm_status
    ) throws -> OpaquePointer {
        var opened: OpaquePointer?
        let (status, progress) = try options.with { params in how(params, &opened) }
        if let progress {
            try progress.check(status)
        } else {
            try check(status)
        }
        return opened!
    }

    deinit { esolm_model_free(handle) }

    /// Something that some models, or some builds of the library, can do and others cannot; esolm.h explains them.
    public struct Feature: RawRepresentable, Hashable, Sendable {
        public let rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }

        public static let diffusion = Feature(rawValue: ESOLM_FEATURE_DIFFUSION)
        public static let sequential = Feature(rawValue: ESOLM_FEATURE_SEQUENTIAL)
        public static let orders = Feature(rawValue: ESOLM_FEATURE_ORDERS)
        public static let adaptive = Feature(rawValue: ESOLM_FEATURE_ADAPTIVE)
        public static let holes = Feature(rawValue: ESOLM_FEATURE_HOLES)
        public static let extend = Feature(rawValue: ESOLM_FEATURE_EXTEND)
        public static let states = Feature(rawValue: ESOLM_FEATURE_STATES)
        public static let scoreOrder = Feature(rawValue: ESOLM_FEATURE_SCORE_ORDER)
        public static let scoreDiffusion = Feature(rawValue: ESOLM_FEATURE_SCORE_DIFFUSION)
        public static let text = Feature(rawValue: ESOLM_FEATURE_TEXT)
        public static let stepText = Feature(rawValue: ESOLM_FEATURE_STEP_TEXT)
        public static let grammar = Feature(rawValue: ESOLM_FEATURE_GRAMMAR)
        public static let lookahead = Feature(rawValue: ESOLM_FEATURE_LOOKAHEAD)
        public static let chat = Feature(rawValue: ESOLM_FEATURE_CHAT)
    }

    /// Whether the model, in this build of the library, can do something.
    public func supports(_ feature: Feature) -> Bool { esolm_model_supports(handle, feature.rawValue) != 0 }

    public struct Info: Sendable {
        public let contextLength: Int
        public let vocabSize: Int
        public let maskToken: UInt32
        /// nil if there is none.
        public let eosToken: UInt32?
        public let parameters: UInt64
        public let tensorBytes: UInt64
        public let fileBytes: UInt64
        /// How long opening took, in microseconds.
        public let loadMicroseconds: UInt64
        /// The device that the weights are on, as in ``Device/name``.
        public let device: String
        /// The token that begins a text; nil if there is none.
        public let bosToken: UInt32?
        /// The token that the library puts before each text by itself; nil if there is none.
        public let prependedToken: UInt32?
    }

    public func info() throws -> Info {
        var info = esolm_model_info()
        info.struct_size = MemoryLayout<esolm_model_info>.stride
        try check(esolm_model_info_get(handle, &info))
        func token(_ number: UInt32) -> UInt32? { number == ESOLM_NO_TOKEN ? nil : number }
        return Info(
            contextLength: info.context_length, vocabSize: info.vocab_size, maskToken: info.mask_token,
            eosToken: token(info.eos_token), parameters: info.parameters,
            tensorBytes: info.tensor_bytes, fileBytes: info.file_bytes, loadMicroseconds: info.load_time_us,
            device: withUnsafeBytes(of: info.device) { Device.text($0) }, bosToken: token(info.bos_token),
            prependedToken: token(info.prepended_token))
    }

    /// The metadata keys of the file, in the file's order.
    public func metadataKeys() throws -> [String] {
        var count = 0
        try check(esolm_model_metadata_count(handle, &count))
        return try (0..<count).map { index in
            try filledText(capacity: 64) { key, n in
                esolm_model_metadata_key(self.handle, index, key.baseAddress, key.count, &n)
            }
        }
    }

    /// The value of a metadata key of the file, as text.
    public func metadata(_ key: String) throws -> String {
        try refuseNUL("the key", key)
        return try filledText(capacity: 128) { text, n in
            esolm_model_metadata_get(self.handle, key, text.baseAddress, text.count, &n)
        }
    }

    /// The bytes of one token, which may be a part of a UTF-8 character.
    public func bytes(of token: UInt32) throws -> [UInt8] {
        try filled(0 as UInt8, capacity: 32) { bytes, n in
            esolm_token_bytes(self.handle, token, bytes.baseAddress, bytes.count, &n)
        }
    }

    /// Whether a token ends a text: ``Info/eosToken``, or another, as a chat model has one for the end of an answer.
    public func isEnd(_ token: UInt32) -> Bool { esolm_token_is_end(handle, token) != 0 }

    /// Whether a token stands for no text: special ones, such as those that begin and end a text, the mask, and numbers outside the
    /// vocabulary; false without a tokenizer.
    public func isSpecial(_ token: UInt32) -> Bool { esolm_token_is_special(handle, token) != 0 }

    /// Converts text to tokens. With `parseSpecial`, special tokens that are written out in it, and "[MASK]", are these tokens
    /// instead of characters. `continues` says that it goes on from another text: tokenizers that put a space before a text
    /// then put none.
    public func tokenize(_ text: String, parseSpecial: Bool = false, continues: Bool = false) throws -> [UInt32] {
        var params = try Model.tokenizeParams(parseSpecial, continues)
        return try withChars(text) { chars in
            try filled(0 as UInt32, capacity: chars.count / 2 + 8) { tokens, n in
                esolm_tokenize_with_params(
                    self.handle, chars.baseAddress, chars.count, &params, tokens.baseAddress, tokens.count, &n)
            }
        }
    }

    private static func tokenizeParams(_ parseSpecial: Bool, _ continues: Bool) throws -> esolm_tokenize_params {
        var params = esolm_tokenize_params()
        try check(esolm_tokenize_params_init(&params, MemoryLayout<esolm_tokenize_params>.stride))
        params.parse_special = parseSpecial ? 1 : 0
        params.continues = continues ? 1 : 0
        return params
    }

    public func detokenize(_ tokens: [UInt32]) throws -> String {
        try filledText(capacity: 4 * tokens.count) { text, n in
            esolm_detokenize(self.handle, tokens, tokens.count, text.baseAddress, text.count, &n)
        }
    }

    /// Converts a text with holes, such as "Once upon a time {{mask 12}} happily ever after.", to a prompt; `length` is the
    /// whole text's number of tokens, including the holes. A space before a hole belongs to what is written there.
    /// `parseSpecial` is for all of the text, `continues` for its beginning.
    public func template(
        _ text: String, parseSpecial: Bool = false, continues: Bool = false
    ) throws -> (prompt: Prompt, length: Int) {
        var params = try Model.tokenizeParams(parseSpecial, continues)
        var positions: [UInt32] = []
        var length = 0
        let tokens: [UInt32] = try withChars(text) { chars in
            try filled(0 as UInt32, capacity: chars.count / 2 + 8) { tokens, n in
                positions = [UInt32](repeating: 0, count: tokens.count)
                return esolm_tokenize_template_with_params(
                    self.handle, chars.baseAddress, chars.count, &params, tokens.baseAddress, &positions,
                    tokens.count, &n, &length)
            }
        }
        return (Prompt(tokens, positions: Array(positions.prefix(tokens.count))), length)
    }
}
