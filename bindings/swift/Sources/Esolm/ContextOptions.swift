import EsolmSystem

/// A context's parameters; 0 means the default, in parentheses.
public struct ContextOptions: Sendable {
    /// The most sequences in a batch (1).
    public var sequences: Int
    /// The longest sequence, in tokens (the model's context length).
    public var length: Int
    /// The most rows (tokens) in a batch, which the network computes at once (128).
    public var batchRows: Int
    /// The most rows of prompts that a step feeds for sequences that join, beside others (64; on devices 512).
    public var promptRows: Int
    /// CPU threads (one per core that the process may use; as many as the pool has).
    public var threads: Int
    /// Stores keys and values as f32 instead of f16.
    public var f32Cache: Bool
    /// Uses ggml's kernels on the CPU instead of esolm's own.
    public var ggml: Bool
    /// The threads to use (the context's own).
    public var pool: Pool?

    public init(
        sequences: Int = 0, length: Int = 0, batchRows: Int = 0, promptRows: Int = 0, threads: Int = 0,
        f32Cache: Bool = false, ggml: Bool = false, pool: Pool? = nil
    ) {
        self.sequences = sequences
        self.length = length
        self.batchRows = batchRows
        self.promptRows = promptRows
        self.threads = threads
        self.f32Cache = f32Cache
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
        params.kv_type = f32Cache ? ESOLM_KV_F32 : ESOLM_KV_F16
        params.kernels = ggml ? ESOLM_KERNELS_GGML : ESOLM_KERNELS_OWN
        params.pool = pool?.handle
        return params
    }
}
