import EsolmSystem

/// The parameters of `Context.scoreText`; they start with the library's defaults.
public struct ScoreParams: Sendable {
    /// Number of orders in which each window is scored; 0 for no `nll`.
    public var orders: Int
    /// Random orders; otherwise there is one, left to right.
    public var randomOrder: Bool
    /// Number of random times for each window's diffusion bound; 0 for no bound.
    public var draws: Int
    /// The share of diffusion in that bound.
    public var alpha0: Double
    /// Seed of the random orders, times and masks.
    public var seed: UInt64

    public init() {
        let c = ScoreParams.defaults()
        orders = c.orders
        randomOrder = c.random_order != 0
        draws = c.draws
        alpha0 = c.alpha_0
        seed = c.seed
    }

    private static func defaults() -> esolm_score_params {
        var c = esolm_score_params()
        _ = esolm_score_params_init(&c, MemoryLayout<esolm_score_params>.stride)
        return c
    }

    func c() -> esolm_score_params {
        var c = ScoreParams.defaults()
        c.orders = orders
        c.random_order = randomOrder ? 1 : 0
        c.draws = draws
        c.alpha_0 = alpha0
        c.seed = seed
        return c
    }
}

/// How likely a text is, in nats.
public struct TextScore: Sendable {
    /// -log p(text) is at most this; 0 without orders.
    public let nll: Double
    /// -log p(text) is at most diffusion + sequential; 0 without draws.
    public let diffusion: Double
    /// Its standard error; NaN for one draw.
    public let diffusionError: Double
    /// What the sequential phase adds where alpha0 is less than 1.
    public let sequential: Double
    /// Its standard error; NaN for one draw.
    public let sequentialError: Double
    /// How many tokens have a probability: the mean is nll / scoredTokens.
    public let scoredTokens: Int
    /// Log-probability of each token, given those before it in the order; nil unless `orders` is 1.
    public let logProbs: [Double]?
}

extension Context {
    /// Scores a text of any length. It is cut into windows of the context's length, which are scored independently;
    /// `progress` is called after each. The context's generation is discarded.
    public func scoreText(
        _ tokens: [UInt32], _ params: ScoreParams = ScoreParams(), progress: ProgressHandler? = nil
    ) throws -> TextScore {
        var c = params.c()
        var found = esolm_text_score()
        found.struct_size = MemoryLayout<esolm_text_score>.stride
        var logProbs = [Double](repeating: 0, count: params.orders == 1 ? tokens.count : 0)
        let callback = Callback<ProgressHandler>(progress ?? { _ in })
        try withExtendedLifetime(callback) {
            try exclusively { (context: OpaquePointer) -> Void in
                let status = logProbs.withUnsafeMutableBufferPointer { numbers in
                    esolm_score_text(
                        context, tokens, tokens.count, &c, numbers.isEmpty ? nil : numbers.baseAddress, numbers.count,
                        &found, callProgress, callback.pointer)
                }
                try callback.check(status)
                forget()
            }
        }
        return TextScore(
            nll: found.nll, diffusion: found.diffusion, diffusionError: found.diffusion_error,
            sequential: found.sequential, sequentialError: found.sequential_error,
            scoredTokens: found.scored_tokens, logProbs: params.orders == 1 ? logProbs : nil)
    }

    /// The log-probability of each token, given those to its left. The context's generation is discarded.
    public func score(_ tokens: [UInt32]) throws -> [Double] {
        try scoreText(tokens).logProbs ?? []
    }

    /// The log-probability of each token given all tokens before it in an order. The first `known` tokens of the order are
    /// given, and not scored. The text has at most the context's length; the order contains each position once, nil is left
    /// to right. The context's generation is discarded.
    public func scoreOrder(_ tokens: [UInt32], order: [UInt32]? = nil, known: Int = 0) throws -> [Double] {
        try scores(tokens, order, known) { context, tokens, order, count, known, logP, capacity in
            esolm_score_order(context, tokens, order, count, known, logP, capacity)
        }
    }

    /// Like `scoreOrder`, but every token is predicted from the known ones alone, as in one step of diffusion.
    public func scoreMasked(_ tokens: [UInt32], order: [UInt32]? = nil, known: Int = 0) throws -> [Double] {
        try scores(tokens, order, known) { context, tokens, order, count, known, logP, capacity in
            esolm_score_masked(context, tokens, order, count, known, logP, capacity)
        }
    }

    private func scores(
        _ tokens: [UInt32], _ order: [UInt32]?, _ known: Int,
        _ how: (
            OpaquePointer, UnsafePointer<UInt32>?, UnsafePointer<UInt32>?, Int, Int, UnsafeMutablePointer<Double>?, Int
        ) -> esolm_status
    ) throws -> [Double] {
        if let order, order.count != tokens.count {
            throw EsolmError(status: .invalidArgument, message: "an order needs one position for each token")
        }
        guard known >= 0, known <= tokens.count else {
            throw EsolmError(
                status: .invalidArgument, message: "the number of known tokens is negative or larger than the text")
        }
        let memory = Scratch()
        let text = memory.copy(tokens)
        let places = order.flatMap { positions in memory.copy(positions) }
        var logProbs = [Double](repeating: 0, count: tokens.count - known + 1) // never empty: C needs an address
        try withExtendedLifetime(memory) {
            try exclusively { (context: OpaquePointer) -> Void in
                let status = logProbs.withUnsafeMutableBufferPointer { numbers in
                    how(context, text, places, tokens.count, known, numbers.baseAddress, numbers.count)
                }
                try check(status)
                forget()
            }
        }
        logProbs.removeLast()
        return logProbs
    }
}
