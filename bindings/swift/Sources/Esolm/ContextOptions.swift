import EsolmSystem

/// A context's parameters; 0 means the default, in parentheses.
public struct ContextOptions: Sendable {
    /// The most sequences in a batch (1).
    public var sequences: Int
    /// The longest sequence, in tokens (the model's context length, at most 4096).
    public var length: Int
    /// The most rows (tokens) in a batch, which the network computes at once (128).
    public var batchRows: Int
    /// The most rows of prompts that a step feeds beside others (64; on devices 512); alone, if more, `batchRows`.
    public var promptRows: Int
    /// CPU threads (one per core that the process may use; as many as the pool has).
    public var threads: Int
    /// How keys and values are stored.
    public var kvType: KVType
    /// Uses ggml's kernels on the CPU instead of esolm's own.
    public var ggml: Bool
    /// The threads to use (the context's own).
    public var pool: Pool?

    public init(
        sequences: Int = 0, length: Int = 0, batchRows: Int = 0, promptRows: Int = 0, threads: Int = 0,
        kvType: KVType = .f16, ggml: Bool = false, pool: Pool? = nil
    ) {
        self.sequences = sequences
        self.length = length
        self.batchRows = batchRows
        self.promptRows = promptRows
        self.threads = threads
        self.kvType = kvType
        self.ggml = ggml
        self.pool = pool
    }

    func c() -> esolm_context_params {
        var params = esolm_context_params()
        _ = esolm_context_params_init(&params, MemoryLayout<esolm_context_params>.stride)
        params.sequences = sequences
        params.length = length
        params.batch_rows = batchRows
        params.prompt_rows = promptRows
        params.threads = threads
        params.kv_type = kvType.code
        params.kernels = ggml ? ESOLM_KERNELS_GGML : ESOLM_KERNELS_OWN
        params.pool = pool?.handle
        return params
    }
}

/// The precision of a context's K/V cache.
public enum KVType: Sendable {
    /// Half precision.
    case f16
    /// Single precision, for exact comparisons.
    case f32
    /// Bytes, each 32 with a scale: 0.53 of the memory of `f16`, for longer texts. On the CPU with esolm's own kernels alone.
    case q8_0

    var code: Int32 {
        switch self {
        case .f16: return ESOLM_KV_F16
        case .f32: return ESOLM_KV_F32
        case .q8_0: return ESOLM_KV_Q8_0
        }
    }
}
