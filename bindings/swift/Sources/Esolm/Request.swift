import EsolmSystem

/// The known tokens of a sequence and their positions; nil positions are 0, 1, 2 and so on.
public struct Prompt: Sendable {
    public var tokens: [UInt32]
    public var positions: [UInt32]?

    public init(_ tokens: [UInt32] = [], positions: [UInt32]? = nil) {
        self.tokens = tokens
        self.positions = positions
    }

    func c(_ memory: Scratch) throws -> esolm_prompt {
        if let positions, positions.count != tokens.count {
            throw EsolmError(status: .invalidArgument, message: "a prompt needs one position for each token")
        }
        return esolm_prompt(
            tokens: memory.copy(tokens), positions: positions.flatMap { memory.copy($0) }, count: tokens.count)
    }
}

/// The order in which positions are generated.
public enum Order: Sendable, Equatable {
    case random, leftToRight
    /// Step j writes the positions j, j + stride, and so on.
    case strided(Int)
    /// The same steps in random order, and random order within each.
    case stridedShuffled(Int)
    /// Blocks of this many neighbouring positions, one block after the other.
    case blocks(Int)
    /// The order itself: every position of the text once.
    case custom([UInt32])
}

/// Adaptive steps, which write the tokens that the model is certain of.
public struct Adaptive: Sendable, Equatable {
    public enum Confidence: Sendable {
        case probability, margin, entropy
    }
    /// `nil`: the window slides by WeDLM's rule.
    public var confidence: Confidence?
    /// The confidence from which on a token is written (entropy: at most).
    public var threshold: Float
    /// The number of positions that a step considers.
    public var window: Int
    /// For `window`, with `inOrder` or WeDLM: as many positions as pay, by those filled so far and not by a clock.
    public static let windowAuto = Int(ESOLM_WINDOW_AUTO)
    /// What the confidence loses for each position behind the first that a step considers; 0 is off.
    public var penalty: Float
    /// The window slides from left to right, as WeDLM's always does; Eso-LM (B) can.
    public var inOrder: Bool

    public init(
        _ confidence: Confidence, threshold: Float, window: Int, penalty: Float = 0, inOrder: Bool = false
    ) {
        self.confidence = confidence
        self.threshold = threshold
        self.window = window
        self.penalty = penalty
        self.inOrder = inOrder
    }

    /// A window that slides by WeDLM's rule, in any causal model; 0 is as large as WeDLM's authors have it.
    public init(window: Int) {
        (threshold, self.window, penalty, inOrder) = (0, window, 0, true)
    }
}

/// A penalty ("don't repeat yourself"): if the last n tokens directly left of a position, n at least `allowedLength`, occur
/// earlier, too, the logit of the token that followed there is lowered by `multiplier` * `base`^(n - `allowedLength`).
public struct Dry: Sendable, Equatable {
    /// 0 is off.
    public var multiplier: Float
    /// 0 is 1.75.
    public var base: Float
    /// 0 is 2.
    public var allowedLength: UInt32
    /// How many tokens left of a position are looked at; 0 is all.
    public var range: UInt32
    /// Tokens that end a repetition.
    public var breakers: [UInt32]

    public init(
        multiplier: Float = 0, base: Float = 0, allowedLength: UInt32 = 0, range: UInt32 = 0, breakers: [UInt32] = []
    ) {
        self.multiplier = multiplier
        self.base = base
        self.allowedLength = allowedLength
        self.range = range
        self.breakers = breakers
    }
}

/// Restrictions on the tokens of a sequence; by default none.
public struct Constraints: Sendable {
    /// By position, the tokens that are allowed there.
    public var allowed: [UInt32: [UInt32]]
    /// Tokens that are never written.
    public var banned: [UInt32]
    /// By token, a number that is added to its logit.
    public var bias: [UInt32: Float]
    /// Above 1 makes tokens that are already in the text less likely; 0 is off.
    public var repetitionPenalty: Float
    /// Subtracted from a token's logit for each time that it is in the text.
    public var frequencyPenalty: Float
    /// Subtracted from the logit of a token that is in the text.
    public var presencePenalty: Float
    /// Makes tokens less likely that would lengthen a repeated run.
    public var dry: Dry
    /// A regular expression that the written text must match: one hole, or all that follows the prompt, from left to right
    /// and one token per step. A library without the feature "grammar" throws `Status.unsupported`.
    public var regex: String?
    /// The same with a JSON schema.
    public var jsonSchema: String?

    public init(
        allowed: [UInt32: [UInt32]] = [:], banned: [UInt32] = [], bias: [UInt32: Float] = [:],
        repetitionPenalty: Float = 0, frequencyPenalty: Float = 0, presencePenalty: Float = 0, dry: Dry = Dry(),
        regex: String? = nil, jsonSchema: String? = nil
    ) {
        self.allowed = allowed
        self.banned = banned
        self.bias = bias
        self.repetitionPenalty = repetitionPenalty
        self.frequencyPenalty = frequencyPenalty
        self.presencePenalty = presencePenalty
        self.dry = dry
        self.regex = regex
        self.jsonSchema = jsonSchema
    }

    func c(_ memory: Scratch) -> esolm_constraints {
        let places = allowed.map { position, tokens in
            esolm_allowed_tokens(position: position, reserved: 0, tokens: memory.copy(tokens), n_tokens: tokens.count)
        }
        let biases = bias.map { token, value in esolm_logit_bias(token: token, bias: value) }
        var rule = esolm_constraints()
        rule.struct_size = MemoryLayout<esolm_constraints>.stride
        rule.allowed = memory.copy(places)
        rule.n_allowed = places.count
        rule.banned = memory.copy(banned)
        rule.n_banned = banned.count
        rule.bias = memory.copy(biases)
        rule.n_bias = biases.count
        rule.repetition_penalty = repetitionPenalty
        rule.frequency_penalty = frequencyPenalty
        rule.presence_penalty = presencePenalty
        rule.dry_multiplier = dry.multiplier
        rule.dry_base = dry.base
        rule.dry_allowed_length = dry.allowedLength
        rule.dry_range = dry.range
        rule.dry_breakers = memory.copy(dry.breakers)
        rule.n_dry_breakers = dry.breakers.count
        rule.regex = regex.flatMap { memory.copy($0.utf8CString.map { $0 }) }
        rule.json_schema = jsonSchema.flatMap { memory.copy($0.utf8CString.map { $0 }) }
        return rule
    }
}

/// The parameters of a generation; they start with the library's defaults.
public struct GenerateParams: Sendable {
    /// Tokens of a sequence, the prompt's included; 0 is the context's length.
    public var length: Int
    /// Most tokens behind the prompt; 0 is no limit but `length`.
    public var maxTokens = 0
    /// Tokens that end a text when the model writes them.
    public var stopTokens: [UInt32] = []
    /// Texts that end a text when the model writes them; the text ends before them.
    public var stopStrings: [String] = []
    /// The end-of-text token does not end a text.
    public var ignoreEOS = false
    /// Sets `Step.texts`.
    public var stepText = false
    /// Number of steps of the diffusion phase. 0, the default: what the file says, or 128.
    public var steps: Int
    /// The same seed gives the same text.
    public var seed: UInt64
    /// For `alpha0`: 1 if adaptive steps or an order other than left to right is given, or if the model does nothing else;
    /// otherwise what the model's file says, or 0, which writes the best text, and which a grammar takes. With steps or a
    /// schedule it is 1 where it would be 0.
    public static let alpha0Auto = ESOLM_ALPHA_0_AUTO

    /// The share of the tokens that diffusion writes, 0 to 1; `alpha0Auto` by default.
    public var alpha0: Double
    /// For `temperature`, `topP`, `minP`, `typicalP` and `topNSigma`: what the model's file says, or the library's default.
    public static let auto = Float(ESOLM_AUTO)
    /// The same for `topK`.
    public static let topKAuto = UInt32(ESOLM_TOP_K_AUTO)

    /// `auto` by default; 0 is the most likely token.
    public var temperature: Float
    /// `auto` by default; 1 is no limit.
    public var topP: Float
    /// `topKAuto` by default; 0 is no limit.
    public var topK: UInt32
    /// Leaves out tokens less likely than this times the most likely one; 0 is no limit.
    public var minP: Float
    /// Locally typical sampling; 1 is no limit.
    public var typicalP: Float
    /// Leaves out logits more than this many standard deviations below the largest; 0 is no limit.
    public var topNSigma: Float
    public var order = Order.random
    /// Tokens of each diffusion step, the last number repeated; empty is the model's schedule.
    public var schedule: [UInt32] = []
    /// None, one for all sequences, or one for each.
    public var constraints: [Constraints] = []
    /// Sets `Step.logProbs`.
    public var logProbs = false
    /// How many of the most likely tokens `Step.topLogProbs` has for each update.
    public var topLogProbs: UInt32 = 0
    /// For `lookahead`: as many as pay.
    public static let lookaheadAuto = UInt32(ESOLM_LOOKAHEAD_AUTO)
    /// Tokens that a step proposes where it writes one: the same distribution in fewer steps; 0 is off.
    public var lookahead: UInt32 = 0
    /// Adaptive steps; they need alpha0 = 1 and no schedule.
    public var adaptive: Adaptive?
    /// Reads and may change the logits of every token. The context keeps it until the generation ends or another begins.
    public var logits: LogitsCallback?

    public init() {
        var c = esolm_generate_params()
        _ = esolm_generate_params_init(&c, MemoryLayout<esolm_generate_params>.stride)
        length = c.length
        steps = c.steps
        seed = c.seed
        alpha0 = c.alpha_0
        temperature = c.temperature
        topP = c.top_p
        topK = c.top_k
        minP = c.min_p
        typicalP = c.typical_p
        topNSigma = c.top_n_sigma
    }

    /// What C would take for something else: sizes below 0, and texts with a NUL.
    func validate() throws {
        let sizes = [length, maxTokens, steps, adaptive?.window ?? 0, orderSize ?? 0]
        if sizes.contains(where: { $0 < 0 }) {
            throw EsolmError(status: .invalidArgument, message: "a length, a size or a number of steps is negative")
        }
        for string in stopStrings { try refuseNUL("a stop string", string) }
        for rule in constraints {
            try refuseNUL("the expression", rule.regex)
            try refuseNUL("the schema", rule.jsonSchema)
        }
    }

    private var orderSize: Int? {
        switch order {
        case .strided(let size), .stridedShuffled(let size), .blocks(let size): return size
        case .random, .leftToRight, .custom: return nil
        }
    }

    /// The C struct, without the logits callback.
    func c(_ memory: Scratch) -> esolm_generate_params {
        var c = esolm_generate_params()
        _ = esolm_generate_params_init(&c, MemoryLayout<esolm_generate_params>.stride)
        c.length = length
        c.steps = steps
        c.seed = seed
        c.alpha_0 = alpha0
        c.temperature = temperature
        c.top_p = topP
        c.top_k = topK
        c.min_p = minP
        c.typical_p = typicalP
        c.top_n_sigma = topNSigma
        c.top_log_probs = topLogProbs
        c.lookahead = lookahead
        switch order {
        case .random:
            c.order = ESOLM_ORDER_RANDOM
        case .leftToRight:
            c.order = ESOLM_ORDER_LEFT_TO_RIGHT
        case .strided(let stride):
            c.order = ESOLM_ORDER_STRIDED
            c.order_size = stride
        case .stridedShuffled(let stride):
            c.order = ESOLM_ORDER_STRIDED_SHUFFLED
            c.order_size = stride
        case .blocks(let size):
            c.order = ESOLM_ORDER_BLOCKS
            c.order_size = size
        case .custom(let positions):
            c.order = ESOLM_ORDER_CUSTOM
            c.custom_order = memory.copy(positions)
            c.n_custom_order = positions.count
        }
        c.schedule = memory.copy(schedule)
        c.n_schedule = schedule.count
        let rules: [UnsafePointer<esolm_constraints>?] = constraints.map { rule in memory.copy([rule.c(memory)]) }
        c.constraints = memory.copy(rules)
        c.n_constraints = rules.count
        c.log_probs = logProbs ? 1 : 0
        c.max_tokens = maxTokens
        c.stop_tokens = memory.copy(stopTokens)
        c.n_stop_tokens = stopTokens.count
        let strings: [UnsafePointer<CChar>?] = stopStrings.map { string in memory.copy(Array(string.utf8CString)) }
        c.stop_strings = memory.copy(strings)
        c.n_stop_strings = strings.count
        c.ignore_eos = ignoreEOS ? 1 : 0
        c.step_text = stepText ? 1 : 0
        if let adaptive {
            switch adaptive.confidence {
            case nil: c.confidence = ESOLM_CONFIDENCE_NONE
            case .probability: c.confidence = ESOLM_CONFIDENCE_PROBABILITY
            case .margin: c.confidence = ESOLM_CONFIDENCE_MARGIN
            case .entropy: c.confidence = ESOLM_CONFIDENCE_ENTROPY
            }
            c.threshold = adaptive.threshold
            c.window = adaptive.window
            c.penalty = adaptive.penalty
            c.in_order = adaptive.inOrder ? 1 : 0
        }
        return c
    }
}
