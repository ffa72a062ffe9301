import EsolmSystem
import Foundation

extension Context {
    /// A generation as a stream of its steps. It runs on the context's queue, and stops when the stream is dropped or its
    /// task is cancelled. Streams of one context run one after the other.
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

/// A stream's turn on the queue. Dropping the stream cancels the context only during its turn, and resets that cancel at the
/// end of the turn.
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
