import EsolmSystem

/// How to make a `Pool`; 0 means the default, in parentheses.
public struct PoolOptions: Sendable {
    /// Threads, that of the computing context included (one per core that the process may use).
    public var threads: Int
    /// The processors that the pool's own threads may run on (empty: those of the process). Linux and Android only.
    public var cpus: [Int]
    /// Added to the nice value of the pool's own threads. Linux and Android only.
    public var nice: Int32
    /// How long a thread waits for work before it sleeps, 0 to 100; 50 is about a millisecond.
    public var poll: UInt32

    public init(threads: Int = 0, cpus: [Int] = [], nice: Int32 = 0, poll: UInt32 = 50) {
        self.threads = threads
        self.cpus = cpus
        self.nice = nice
        self.poll = poll
    }
}

/// Threads that several contexts share (`ContextOptions.pool`). They help one context at a time; one that finds them in use
/// computes alone. (The fields run and run_user_data of C are left out.)
public final class Pool: @unchecked Sendable {
    let handle: OpaquePointer

    public init(_ options: PoolOptions = PoolOptions()) throws {
        var params = esolm_pool_params()
        _ = esolm_pool_params_init(&params, MemoryLayout<esolm_pool_params>.stride)
        params.threads = options.threads
        params.nice = options.nice
        params.poll = options.poll
        var made: OpaquePointer?
        try options.cpus.withUnsafeBufferPointer { cpus in
            try cpus.withMemoryRebound(to: size_t.self) { cpus in
                params.cpus = cpus.baseAddress
                params.n_cpus = cpus.count
                try check(esolm_pool_new(&params, &made))
            }
        }
        handle = made!
    }

    deinit { esolm_pool_free(handle) }

    /// Threads, that of the computing context included.
    public var threads: Int { esolm_pool_threads(handle) }
}
