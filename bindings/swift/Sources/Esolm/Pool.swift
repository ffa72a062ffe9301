import EsolmSystem

/// How to make a `Pool`; 0 means the default, in parentheses.
public struct PoolOptions: Sendable {
    /// Threads, that of the computing context included (one per core that the process may use).
    public var threads: Int
    /// The processors that the pool's own threads may run on (empty: those of the process). Linux and Android only.
    public var cpus: [Int]
    /// Added to the nice value of the pool's own threads. Linux and Android only.
    public var nice: Int32
    /// How long a thread waits for work before it sleeps, 0 to 100; 50, the default, is about a millisecond.
    public var poll: UInt32

    /// Without `poll`: the library's default.
    public init(threads: Int = 0, cpus: [Int] = [], nice: Int32 = 0, poll: UInt32? = nil) {
        self.threads = threads
        self.cpus = cpus
        self.nice = nice
        self.poll = poll ?? PoolOptions.defaults().poll
    }

    static func defaults() -> esolm_pool_params {
        var params = esolm_pool_params()
        _ = esolm_pool_params_init(&params, MemoryLayout<esolm_pool_params>.stride)
        return params
    }
}

/// Calls `task` with each number below `count`, side by side in threads of the caller's as far as these are free and otherwise
/// later, also one after another, and returns when all calls have returned. It must not call a context of the pool.
public typealias TaskRunner = @Sendable (_ count: Int, _ task: (Int) -> Void) -> Void

/// Threads that several contexts share (`ContextOptions.pool`). They help one context at a time; one that finds them in use
/// computes alone.
public final class Pool: @unchecked Sendable {
    let handle: OpaquePointer
    /// What C has a pointer to (run_user_data).
    private let runner: Callback<TaskRunner>?

    public init(_ options: PoolOptions = PoolOptions()) throws {
        var params = PoolOptions.defaults()
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
        runner = nil
    }

    /// A pool of the caller's own threads, at most `threads` at a time, such as those of Dispatch:
    ///
    ///     try Pool(threads: 2) { count, task in DispatchQueue.concurrentPerform(iterations: count, execute: task) }
    public init(threads: Int, run: @escaping TaskRunner) throws {
        var params = PoolOptions.defaults()
        let runner = Callback<TaskRunner>(run)
        params.threads = threads
        params.run = callRun
        params.run_user_data = runner.pointer
        var made: OpaquePointer?
        try check(esolm_pool_new(&params, &made))
        handle = made!
        self.runner = runner
    }

    deinit { esolm_pool_free(handle) }

    /// Threads, that of the computing context included.
    public var threads: Int { esolm_pool_threads(handle) }
}

func callRun(_ task: esolm_task?, _ taskData: UnsafeRawPointer?, _ count: Int, _ data: UnsafeMutableRawPointer?) {
    guard let task, let data else { return }
    Callback<TaskRunner>.from(data).function(count) { number in task(taskData, number) }
}
