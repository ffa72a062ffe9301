import Dispatch
import EsolmSystem

/// The known tokens of a sequence. Without positions they are its beginning.
public struct Prompt: Sendable {
    public var tokens: [UInt32]
    public var positions: [UInt32]?

    public init(_ tokens: [UInt32] = [], positions: [UInt32]? = nil) {
        self.tokens = tokens
        self.positions = positions
    }
}

/// What to generate; every value begins with the library's default.
public struct GenerateParams: @unchecked Sendable {
    /// The C struct, for what has no name of its own here.
    public var c = esolm_generate_params()

    public init() { _ = esolm_generate_params_init(&c, MemoryLayout<esolm_generate_params>.stride) }

    /// Tokens of a sequence, the prompt's included; 0 is the context's length.
    public var length: Int {
        get { c.length }
        set { c.length = newValue }
    }
    public var steps: Int {
        get { c.steps }
        set { c.steps = newValue }
    }
    public var seed: UInt64 {
        get { c.seed }
        set { c.seed = newValue }
    }
    /// Share of the tokens that diffusion writes.
    public var alpha0: Double {
        get { c.alpha_0 }
        set { c.alpha_0 = newValue }
    }
    public var temperature: Float {
        get { c.temperature }
        set { c.temperature = newValue }
    }
}

/// What a step did.
public struct Step: Sendable {
    public struct Update: Sendable {
        public let sequence, position, token: UInt32
    }
    public let index: Int
    public let total: Int
    public let updates: [Update]
}

/// The memory and the threads for generating from a model. Calls that overlap fail with `ESOLM_ERR_BUSY`.
public final class Context: @unchecked Sendable {
    private let handle: OpaquePointer
    private let queue = DispatchQueue(label: "esolm.context")

    /// 0 is the default of each limit.
    public init(_ model: Model, sequences: Int = 0, length: Int = 0, threads: Int = 0) throws {
        var params = esolm_context_params()
        try check(esolm_context_params_init(&params, MemoryLayout<esolm_context_params>.stride))
        params.sequences = sequences
        params.length = length
        params.threads = threads
        var made: OpaquePointer?
        try check(esolm_context_new(model.handle, &params, &made))
        handle = made!
    }

    deinit { esolm_context_free(handle) }

    /// Begins a generation of one sequence per prompt, in place of the last one.
    public func begin(_ prompts: [Prompt], _ params: GenerateParams = GenerateParams()) throws {
        // All tokens and all positions in one array each, which the prompts point into.
        let tokens = prompts.flatMap(\.tokens)
        let positions = prompts.flatMap { $0.positions ?? Array(0..<UInt32($0.tokens.count)) }
        guard tokens.count == positions.count else {
            throw EsolmError(status: ESOLM_ERR_INVALID_ARGUMENT, message: "a prompt has not one position for each token")
        }
        var c = params.c
        try tokens.withUnsafeBufferPointer { tokens in
            try positions.withUnsafeBufferPointer { positions in
                var at = 0
                let known = prompts.map { prompt -> esolm_prompt in
                    defer { at += prompt.tokens.count }
                    return esolm_prompt(
                        tokens: tokens.baseAddress.map { $0 + at }, positions: positions.baseAddress.map { $0 + at },
                        count: prompt.tokens.count)
                }
                try check(esolm_begin(handle, known, known.count, &c))
            }
        }
    }

    /// Runs the next step; nil at the end.
    public func step() throws -> Step? {
        var info = esolm_step_info()
        var done: Int32 = 0
        try check(esolm_step(handle, &info, &done))
        if done != 0 { return nil }
        let updates = UnsafeBufferPointer(start: info.updates, count: info.n_updates).map {
            Step.Update(sequence: $0.sequence, position: $0.position, token: $0.token)
        }
        return Step(index: info.index, total: info.total, updates: updates)
    }

    /// A whole generation as a stream of steps. It runs on a queue of its own, and stops when the stream is dropped or
    /// its task is cancelled.
    public func steps(
        _ prompts: [Prompt], _ params: GenerateParams = GenerateParams()
    ) -> AsyncThrowingStream<Step, Error> {
        AsyncThrowingStream { continuation in
            continuation.onTermination = { reason in
                if case .cancelled = reason { self.cancel() }
            }
            queue.async {
                defer { self.resetCancel() } // the stream's cancel is for it alone
                do {
                    try self.begin(prompts, params)
                    while let step = try self.step() {
                        if case .terminated = continuation.yield(step) { break }
                    }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
    }

    /// Stops what runs on this context, and what comes later until `resetCancel`; from any thread.
    public func cancel() { _ = esolm_cancel(handle) }
    public func resetCancel() { _ = esolm_cancel_reset(handle) }

    /// Forgets the generation.
    public func reset() throws { try check(esolm_context_reset(handle)) }

    /// Log-probabilities of a text's tokens from left to right.
    public func score(_ tokens: [UInt32]) throws -> [Double] {
        var scores = [Double](repeating: 0, count: tokens.count)
        var sum = esolm_text_score()
        sum.struct_size = MemoryLayout<esolm_text_score>.stride
        try check(esolm_score_text(handle, tokens, tokens.count, nil, &scores, scores.count, &sum, nil, nil))
        return scores
    }

    /// The tokens of a sequence by position, the model's mask token where none is written yet.
    public func tokens(_ sequence: Int = 0) throws -> [UInt32] {
        try filled(0, capacity: 128) { tokens, n in
            esolm_copy_tokens(self.handle, sequence, tokens.baseAddress, tokens.count, &n)
        }
    }

    /// A sequence's finished beginning.
    public func text(_ sequence: Int = 0) throws -> String {
        try Esolm.text(capacity: 512) { text, n in
            esolm_copy_text(self.handle, sequence, text.baseAddress, text.count, &n)
        }
    }
}
