import EsolmSystem
import Foundation

/// Why a text ended; `none` while it is being written.
public enum StopReason: Sendable, Equatable {
    case none, length, endOfText, stopToken, stopString, cancelled, error
    /// One that this package does not know yet.
    case other(Int32)

    init(_ reason: Int32) {
        switch reason {
        case ESOLM_STOP_NONE: self = .none
        case ESOLM_STOP_LENGTH: self = .length
        case ESOLM_STOP_END_OF_TEXT: self = .endOfText
        case ESOLM_STOP_TOKEN: self = .stopToken
        case ESOLM_STOP_STRING: self = .stopString
        case ESOLM_STOP_CANCELLED: self = .cancelled
        case ESOLM_STOP_ERROR: self = .error
        default: self = .other(reason)
        }
    }
}

/// The result of a step.
public struct Step: Sendable {
    public struct Update: Sendable, Equatable {
        public let sequence, position, token: UInt32
    }
    public let index: Int
    public let total: Int
    public let updates: [Update]
    /// Log-probabilities of the updates; nil unless `GenerateParams.logProbs` is set.
    public let logProbs: [Double]?
    /// A token and its log-probability under the model.
    public struct TokenLogProb: Sendable, Equatable {
        public let token: UInt32
        public let logProb: Float
    }
    /// The most likely tokens at the position of each update, the likeliest first; empty unless its sequence's
    /// `GenerateParams.topLogProbs` is set.
    public let topLogProbs: [[TokenLogProb]]
    /// The text of each sequence that became final in this step, in whole characters; nil unless `GenerateParams.stepText`
    /// is set. The text after `begin`, which is the prompt's, and these texts, one behind the other, are the text at the
    /// end.
    public let texts: [String]?
    /// Why each text ended; nil unless `GenerateParams.stepText` is set.
    public let stopReasons: [StopReason]?
    /// How many tokens had been proposed for this step, and how many of them are among the updates: `GenerateParams.lookahead`.
    public let proposed: Int
    public let accepted: Int

    init(_ info: esolm_step_info, topLogProbs: [[TokenLogProb]]) {
        self.topLogProbs = topLogProbs
        index = info.index
        proposed = info.n_proposed
        accepted = info.n_accepted
        total = info.total
        updates = UnsafeBufferPointer(start: info.updates, count: info.n_updates).map { update in
            Update(sequence: update.sequence, position: update.position, token: update.token)
        }
        if let numbers = info.log_probs {
            logProbs = Array(UnsafeBufferPointer(start: numbers, count: info.n_updates))
        } else {
            logProbs = nil
        }
        if let new = info.texts {
            let all = UnsafeBufferPointer(start: new, count: info.n_texts)
            texts = all.map { (text: esolm_step_text) -> String in
                let bytes = UnsafeRawBufferPointer(start: text.text, count: text.len)
                return String(decoding: bytes, as: UTF8.self)
            }
            stopReasons = all.map { (text: esolm_step_text) -> StopReason in StopReason(text.stop_reason) }
        } else {
            texts = nil
            stopReasons = nil
        }
    }
}

/// Holds the memory and the threads for generating from a model. One call at a time computes; another one that overlaps with it
/// fails with `Status.busy`. What the last step left can be read at any time: with `tokens`, `order`, `text`, `stopReason` and
/// `profile`.
public final class Context: @unchecked Sendable {
    private let handle: OpaquePointer
    /// Has the function that C calls, of a pool of the caller's threads.
    private let pool: Pool?
    private let lock = NSLock()
    /// The logits callbacks of the sequences, to which C has pointers; guarded by `lock`.
    private var logitsCallbacks: [UInt32: Callback<LogitsCallback>] = [:]
    /// `GenerateParams.topLogProbs` of the sequences; guarded by `lock`.
    private var topLogProbs: [UInt32: UInt32] = [:]
    /// Runs the streams of `steps`, one after the other.
    let queue = DispatchQueue(label: "esolm.context")

    public init(_ model: Model, _ options: ContextOptions = ContextOptions()) throws {
        var params = options.c()
        var made: OpaquePointer?
        try check(esolm_context_new(model.handle, &params, &made))
        handle = made!
        pool = options.pool
    }

    deinit { esolm_context_free(handle) }

    /// Runs a call as the only one that computes.
    func exclusively<R>(_ body: (OpaquePointer) throws -> R) throws -> R {
        guard lock.try() else {
            throw EsolmError(status: .busy, message: "the context is in use by another call")
        }
        defer { lock.unlock() }
        return try body(handle)
    }

    /// Runs a call that may run beside others.
    func reading<R>(_ body: (OpaquePointer) throws -> R) throws -> R {
        try body(handle)
    }

    /// Has this many threads compute, up to as many as the context was made for.
    public func setThreads(_ threads: Int) throws {
        try exclusively { try check(esolm_context_set_threads($0, threads)) }
    }

    /// The number of threads that compute.
    public func threads() throws -> Int {
        var threads = 0
        try exclusively { try check(esolm_context_threads($0, &threads)) }
        return threads
    }

    /// Measures what a pass costs beside its rows, in rows, for `setPassOverhead`. Ends the generation.
    public func measurePassOverhead() throws -> Float {
        var rows: Float = 0
        try exclusively { (context: OpaquePointer) -> Void in
            try check(esolm_context_measure_pass_overhead(context, &rows))
            forget()
        }
        return rows
    }

    /// Says what a pass costs beside its rows, in rows. By it `GenerateParams.lookaheadAuto` and `Adaptive.windowAuto` decide, so
    /// their texts depend on it; 0 stands for what is the same on all machines.
    public func setPassOverhead(_ rows: Float) throws {
        try exclusively { try check(esolm_context_set_pass_overhead($0, rows)) }
    }

    /// Begins a generation of one sequence per prompt, and discards the previous one.
    public func begin(_ prompts: [Prompt], _ params: GenerateParams = GenerateParams()) throws {
        try start(prompts, params) { context, known, count, c in esolm_begin(context, known, count, c) }
    }

    /// Continues from the tokens so far to a text of `params.length` tokens, without computing their keys and values again.
    /// Steps that are left are discarded. Each sequence has a prompt, with further known tokens. Use another seed than
    /// before.
    public func extend(_ prompts: [Prompt], _ params: GenerateParams = GenerateParams()) throws {
        try start(prompts, params) { context, known, count, c in esolm_extend(context, known, count, c) }
    }

    private func start(
        _ prompts: [Prompt], _ params: GenerateParams,
        _ how: (OpaquePointer, UnsafePointer<esolm_prompt>?, Int, UnsafePointer<esolm_generate_params>) -> esolm_status
    ) throws {
        try request(prompts, params) { context, known, c, logitsCallback in
            try check(how(context, known, prompts.count, c))
            self.logitsCallbacks = [:]
            self.topLogProbs = [:]
            for sequence in prompts.indices { self.keep(params, logitsCallback, for: UInt32(sequence)) }
        }
    }

    /// Adds a sequence to the generation, between two steps or in a new context, and returns its number; `step` runs it. The
    /// others are not disturbed, and its text is the one that the prompt would get alone in a generation with these
    /// parameters. A beginning that another sequence has, or had, is not computed again. `params.logits` is for this sequence
    /// only, `params.constraints` has one entry at most. A long prompt takes several steps, which write nothing of it yet
    /// (`ContextOptions.promptRows`). Without a free sequence it fails with `Status.invalidArgument`.
    public func addSequence(_ prompt: Prompt, _ params: GenerateParams = GenerateParams()) throws -> UInt32 {
        var sequence: UInt32 = 0
        try request([prompt], params) { context, known, c, logitsCallback in
            try check(esolm_sequence_add(context, known, c, &sequence))
            self.keep(params, logitsCallback, for: sequence)
        }
        return sequence
    }

    /// As `extend` for one sequence; the others are not disturbed.
    public func extendSequence(
        _ sequence: UInt32, _ prompt: Prompt, _ params: GenerateParams = GenerateParams()
    ) throws {
        try request([prompt], params) { context, known, c, logitsCallback in
            try check(esolm_sequence_extend(context, sequence, known, c))
            self.keep(params, logitsCallback, for: sequence)
        }
    }

    /// Goes on behind the text of a sequence, such as a model's answer, with a prompt whose positions count from there; the
    /// others are not disturbed. At most the first `keep` tokens of the text stay, all if it is nil. The keys and values of what
    /// stays are kept: only the new tokens are computed, and those of the last step. `params.maxTokens` counts behind the prompt.
    public func appendSequence(
        _ sequence: UInt32, keep: Int? = nil, _ prompt: Prompt, _ params: GenerateParams = GenerateParams()
    ) throws {
        // As an unsigned number, -1 is the largest.
        let most = keep.map { Swift.max(0, $0) } ?? -1
        try request([prompt], params) { context, known, c, logitsCallback in
            try check(esolm_sequence_append(context, sequence, most, known, c))
            self.keep(params, logitsCallback, for: sequence)
        }
    }

    /// Removes a sequence, finished or not; read its text before. Its number may then be another's.
    public func removeSequence(_ sequence: UInt32) throws {
        try exclusively { context in
            try check(esolm_sequence_remove(context, sequence))
            self.logitsCallbacks[sequence] = nil
            self.topLogProbs[sequence] = nil
        }
    }

    /// How many tokens of a sequence have keys and values that the next steps need not compute. Before the first step of one
    /// that was added: those that came from another sequence.
    public func cachedTokens(_ sequence: UInt32 = 0) throws -> Int {
        var count = 0
        try exclusively { context in try check(esolm_sequence_cached_tokens(context, sequence, &count)) }
        return count
    }

    /// Calls `body` with the structs of C. If it fails, the sequences that are there keep their callbacks.
    private func request(
        _ prompts: [Prompt], _ params: GenerateParams,
        _ body: (
            OpaquePointer, UnsafePointer<esolm_prompt>?, UnsafePointer<esolm_generate_params>, Callback<LogitsCallback>?
        ) throws -> Void
    ) throws {
        try params.validate()
        let memory = Scratch()
        let known = memory.copy(try prompts.map { prompt in try prompt.c(memory) })
        var c = params.c(memory)
        var logitsCallback: Callback<LogitsCallback>?
        if let logits = params.logits {
            let made = Callback<LogitsCallback>(logits)
            c.logits_callback = callLogits
            c.logits_user_data = made.pointer
            logitsCallback = made
        }
        let made = logitsCallback
        try withExtendedLifetime(memory) {
            try exclusively { context in try body(context, known, &c, made) }
        }
    }

    /// After a call, under `lock`, that ended the generation: its callbacks may refer to the context.
    func forget() {
        logitsCallbacks = [:]
        topLogProbs = [:]
    }

    private func keep(_ params: GenerateParams, _ logitsCallback: Callback<LogitsCallback>?, for sequence: UInt32) {
        logitsCallbacks[sequence] = logitsCallback
        topLogProbs[sequence] = params.topLogProbs
    }

    /// Runs the next step of all sequences; nil at the end. If it throws, the sequences are as before the step; if that
    /// concerns one of them only, its `stopReason` is `error`, and the others go on once it is removed.
    public func step() throws -> Step? {
        try exclusively { (context: OpaquePointer) -> Step? in
            var info = esolm_step_info()
            info.struct_size = MemoryLayout<esolm_step_info>.stride
            var done: Int32 = 0
            let status = esolm_step(context, &info, &done)
            // The error that one of the callbacks has thrown, if one has.
            for callback in logitsCallbacks.values { try callback.check(ESOLM_OK) }
            try check(status)
            if done != 0 {
                forget()
                return nil
            }
            return Step(info, topLogProbs: try mostLikely(context, info))
        }
    }

    /// The most likely tokens at the positions of the last step's updates, as many as each sequence wants; C has as many as
    /// the one that wants the most. Empty if no sequence of the step wants them.
    private func mostLikely(_ context: OpaquePointer, _ info: esolm_step_info) throws -> [[Step.TokenLogProb]] {
        let updates = UnsafeBufferPointer(start: info.updates, count: info.n_updates)
        let wanted = updates.map { update in Int(topLogProbs[update.sequence] ?? 0) }
        if !wanted.contains(where: { $0 > 0 }) { return [] }
        return try wanted.indices.map { (update: Int) throws -> [Step.TokenLogProb] in
            let count = wanted[update]
            if count == 0 { return [] }
            let zero = esolm_token_log_prob(token: 0, log_prob: 0)
            let entries = try filled(zero, capacity: count) { entries, n in
                esolm_copy_top_log_probs(context, update, entries.baseAddress, entries.count, &n)
            }
            return entries.prefix(count).map { Step.TokenLogProb(token: $0.token, logProb: $0.log_prob) }
        }
    }

    /// The network's logits at positions of a sequence that are not written yet, one array of the vocabulary's size for
    /// each: as if the position were the next and only one of a step. It changes nothing of the generation.
    public func logits(_ positions: [UInt32], sequence: UInt32 = 0) throws -> [[Float]] {
        try evaluated(positions) { context, at, to, n in
            esolm_evaluate_logits(context, sequence, at.baseAddress, at.count, to.baseAddress, to.count, &n)
        }
    }

    /// The same as the probabilities that the token would be drawn with: after constraints, temperature and filters.
    public func probabilities(_ positions: [UInt32], sequence: UInt32 = 0) throws -> [[Float]] {
        try evaluated(positions) { context, at, to, n in
            esolm_evaluate_probabilities(context, sequence, at.baseAddress, at.count, to.baseAddress, to.count, &n)
        }
    }

    private func evaluated(
        _ positions: [UInt32],
        _ evaluate: (OpaquePointer, UnsafeBufferPointer<UInt32>, UnsafeMutableBufferPointer<Float>, inout Int) -> esolm_status
    ) throws -> [[Float]] {
        if positions.isEmpty { return [] }
        let all = try exclusively { (context: OpaquePointer) -> [Float] in
            try positions.withUnsafeBufferPointer { at in
                try filled(0 as Float, capacity: 0) { to, n in evaluate(context, at, to, &n) }
            }
        }
        let width = all.count / positions.count
        return positions.indices.map { row in Array(all[row * width..<(row + 1) * width]) }
    }

    /// Runs a generation to its end; read the result with `text` or `tokens`.
    public func generate(_ prompts: [Prompt], _ params: GenerateParams = GenerateParams()) throws {
        try begin(prompts, params)
        while try step() != nil {}
    }

    /// Cancels the running call and all later ones until `resetCancel`. May be called from any thread.
    public func cancel() { _ = esolm_cancel(handle) }
    public func resetCancel() { _ = esolm_cancel_reset(handle) }

    /// Discards the generation.
    public func reset() throws {
        try exclusively { (context: OpaquePointer) -> Void in
            try check(esolm_context_reset(context))
            forget()
        }
    }

    /// The tokens of a sequence by position, the model's mask token where none is written yet.
    public func tokens(_ sequence: UInt32 = 0) throws -> [UInt32] {
        try reading { context in
            try filled(0 as UInt32, capacity: 128) { tokens, n in
                esolm_copy_tokens(context, sequence, tokens.baseAddress, tokens.count, &n)
            }
        }
    }

    /// The order in which the positions of a sequence are generated, the known ones first; while a window slides, those that are
    /// final.
    public func order(_ sequence: UInt32 = 0) throws -> [UInt32] {
        try reading { context in
            try filled(0 as UInt32, capacity: 128) { positions, n in
                esolm_copy_order(context, sequence, positions.baseAddress, positions.count, &n)
            }
        }
    }

    /// Why the text of a sequence ended.
    public func stopReason(_ sequence: UInt32 = 0) throws -> StopReason {
        try reading { context in
            var reason: Int32 = 0
            try check(esolm_stop_reason(context, sequence, &reason))
            return StopReason(reason)
        }
    }

    /// The text of a sequence up to the first token that is unknown, or to what ended it.
    public func text(_ sequence: UInt32 = 0) throws -> String {
        try reading { context in
            try filledText(capacity: 512) { text, n in
                esolm_copy_text(context, sequence, text.baseAddress, text.count, &n)
            }
        }
    }

    /// The state of the generation, for `restore`: tokens, order, keys and values, but not the remaining steps.
    public func save() throws -> [UInt8] {
        try exclusively { context in
            try filled(0 as UInt8, capacity: 0) { state, n in
                esolm_state_save(context, state.baseAddress, state.count, &n)
            }
        }
    }

    /// Replaces the current generation by a saved one, which has no steps left; `extend` continues it. A state of another
    /// model or a damaged one is an error with `Status.badFile`.
    public func restore(_ state: [UInt8]) throws {
        guard !state.isEmpty else { throw EsolmError(status: .badFile, message: "the state is empty") }
        try exclusively { (context: OpaquePointer) -> Void in
            try check(state.withUnsafeBytes { bytes in esolm_state_restore(context, bytes.baseAddress, bytes.count) })
            forget()
        }
    }

    /// The state of one sequence, for `restoreSequence` of this context or another: such as a conversation that waits for its next
    /// message while others have its place. The others are not disturbed.
    public func saveSequence(_ sequence: UInt32) throws -> [UInt8] {
        try exclusively { context in
            try filled(0 as UInt8, capacity: 0) { state, n in
                esolm_sequence_save(context, sequence, state.baseAddress, state.count, &n)
            }
        }
    }

    /// Adds a saved sequence, which has no steps left, and returns its number; `extendSequence` and `appendSequence` go on with it.
    /// The others are not disturbed.
    public func restoreSequence(_ state: [UInt8]) throws -> UInt32 {
        guard !state.isEmpty else { throw EsolmError(status: .badFile, message: "the state is empty") }
        return try exclusively { context in
            var sequence: UInt32 = 0
            try check(
                state.withUnsafeBytes { bytes in
                    esolm_sequence_restore(context, bytes.baseAddress, bytes.count, &sequence)
                })
            self.logitsCallbacks[sequence] = nil
            self.topLogProbs[sequence] = nil
            return sequence
        }
    }
}
