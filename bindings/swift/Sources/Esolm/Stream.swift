import EsolmSystem
import Foundation

extension Context {
    /// A whole generation as a stream of steps. It runs on a queue of its own, and stops when the stream is dropped or
    /// its task is cancelled. Streams of one context run one after the other.
    public func steps(
        _ prompts: [Prompt], _ params: GenerateParams = GenerateParams()
    ) -> AsyncThrowingStream<Step, Error> {
        AsyncThrowingStream { continuation in
            let turn = Turn(self)
            continuation.onTermination = { reason in
                if case .cancelled = reason { turn.drop() }
            }
            queue.async {
                guard turn.begin() else { return continuation.finish() }
                do {
                    try self.begin(prompts, params)
                    while let step = try self.step() {
                        if case .terminated = continuation.yield(step) { break }
                    }
                    turn.end()
                    continuation.finish()
                } catch {
                    turn.end()
                    continuation.finish(throwing: error)
                }
            }
        }
    }
}

/// A stream's time on the queue: dropping the stream cancels the context in that time only, and for that time only.
private final class Turn: @unchecked Sendable {
    private enum State {
        case waiting, running, dropped, over
    }
    private let context: Context
    private let lock = NSLock()
    private var state = State.waiting

    init(_ context: Context) { self.context = context }

    /// false if the stream was dropped before its turn.
    func begin() -> Bool {
        lock.lock()
        defer { lock.unlock() }
        guard case .waiting = state else { return false }
        state = .running
        return true
    }

    func drop() {
        lock.lock()
        defer { lock.unlock() }
        if case .running = state { context.cancel() }
        if case .over = state { return }
        state = .dropped
    }

    func end() {
        lock.lock()
        defer { lock.unlock() }
        if case .dropped = state { context.resetCancel() }
        state = .over
    }
}
