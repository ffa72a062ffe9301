import EsolmSystem

/// The memory of a model and a context, in bytes.
public struct MemoryUse: Sendable, Equatable {
    /// Shared by all contexts of the model.
    public let weights: Int
    /// A context's host memory; on the CPU it includes `kvCache` and `compute`.
    public let arena: Int
    public let kvCache: Int
    public let compute: Int

    fileprivate init(_ call: (UnsafeMutablePointer<esolm_memory_use>) throws -> esolm_status) throws {
        var use = esolm_memory_use()
        use.struct_size = MemoryLayout<esolm_memory_use>.stride
        try check(try call(&use))
        weights = use.weights
        arena = use.arena
        kvCache = use.kv_cache
        compute = use.compute
    }
}

/// The memory that a model file and a context of it would take. Reads the file's header only.
public func estimateMemory(
    path: String, _ model: ModelOptions = ModelOptions(), _ context: ContextOptions = ContextOptions()
) throws -> MemoryUse {
    try refuseNUL("the path", path)
    return try MemoryUse { use in
        var limits = context.c()
        return try model.with { params in esolm_memory_estimate(path, params, &limits, use) }.0
    }
}

extension Model {
    /// The exact memory of a context with these options.
    public func memoryUse(_ context: ContextOptions = ContextOptions()) throws -> MemoryUse {
        try MemoryUse { use in
            var limits = context.c()
            return esolm_context_memory_use(self.handle, &limits, use)
        }
    }
}

/// The time of a generation's steps so far, in seconds, by kind of work.
public struct Profile: Sendable, Equatable {
    /// Matrix products of the transformer blocks.
    public let blocks: Double
    /// Attention over the K/V cache.
    public let attention: Double
    /// Product with the output matrix.
    public let vocabulary: Double
    /// From logits to tokens.
    public let sampling: Double
    /// Everything else in the steps.
    public let rest: Double
}

extension Context {
    /// The time that the generation's steps took.
    public func profile() throws -> Profile {
        try reading { (context: OpaquePointer) -> Profile in
            var profile = esolm_profile()
            profile.struct_size = MemoryLayout<esolm_profile>.stride
            try check(esolm_context_profile(context, &profile))
            return Profile(
                blocks: profile.blocks, attention: profile.attention, vocabulary: profile.vocabulary,
                sampling: profile.sampling, rest: profile.rest)
        }
    }
}
