import EsolmSystem

/// Where memory goes, in bytes.
public struct MemoryUse: Sendable, Equatable {
    /// The model's, shared by all contexts.
    public let weights: Int
    /// A context's host memory; on the CPU the two below are in it.
    public let arena: Int
    public let kvCache: Int
    public let compute: Int

    fileprivate init(_ call: (UnsafeMutablePointer<esolm_memory_use>) -> esolm_status) throws {
        var use = esolm_memory_use()
        use.struct_size = MemoryLayout<esolm_memory_use>.stride
        try check(call(&use))
        weights = use.weights
        arena = use.arena
        kvCache = use.kv_cache
        compute = use.compute
    }
}

/// What the model in the file at path and a context of it would take; it reads the file's header only.
public func estimateMemory(
    path: String, _ model: ModelOptions = ModelOptions(), _ context: ContextOptions = ContextOptions()
) throws -> MemoryUse {
    try MemoryUse { use in
        var limits = context.c()
        return withOptionalCString(model.device) { device in
            var params = esolm_model_params()
            _ = esolm_model_params_init(&params, MemoryLayout<esolm_model_params>.stride)
            params.mode = model.copied ? ESOLM_MODE_COPY : ESOLM_MODE_MAP
            params.device = device
            return esolm_memory_estimate(path, &params, &limits, use)
        }
    }
}

extension Model {
    /// What a context with these limits takes, to the byte.
    public func memoryUse(_ context: ContextOptions = ContextOptions()) throws -> MemoryUse {
        try MemoryUse { use in
            var limits = context.c()
            return esolm_context_memory_use(self.handle, &limits, use)
        }
    }
}

/// The time of a generation's steps so far, in seconds, by what it was spent on.
public struct Profile: Sendable, Equatable {
    /// Products with the matrices of the blocks.
    public let blocks: Double
    /// Queries over keys and values in the cache.
    public let attention: Double
    /// Products with the vocabulary's matrix.
    public let vocabulary: Double
    /// From logits to tokens.
    public let sampling: Double
    /// Everything else in the steps.
    public let rest: Double
}

extension Context {
    /// Where the time of the generation's steps went.
    public func profile() throws -> Profile {
        try exclusively { (context: OpaquePointer) -> Profile in
            var profile = esolm_profile()
            profile.struct_size = MemoryLayout<esolm_profile>.stride
            try check(esolm_context_profile(context, &profile))
            return Profile(
                blocks: profile.blocks, attention: profile.attention, vocabulary: profile.vocabulary,
                sampling: profile.sampling, rest: profile.rest)
        }
    }
}
