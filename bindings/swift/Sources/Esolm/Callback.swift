import EsolmSystem

/// Is told how much of a long operation is done, from 0 to 1 and never less than before. An error stops the operation,
/// and is what its call throws.
public typealias ProgressHandler = (_ fraction: Double) throws -> Void

/// A token that is about to be drawn.
public struct Choice {
    /// The index of its prompt.
    public let sequence: Int
    /// The place in generation order.
    public let slot: Int
    /// The place in the text.
    public let position: Int
    /// The network's own output, valid during the call.
    public let modelLogits: UnsafeBufferPointer<Float>
}

/// Sees and changes the logits that a token is drawn from, one for each token of the vocabulary, after the constraints
/// were applied, before temperature, topK and topP. Minus infinity rules a token out. The buffer is valid during the
/// call. An error stops the generation, and is what `Context.step` throws.
///
/// It runs in `Context.step`, on its thread; other calls on the context fail with `Status.busy`, but `cancel`.
public typealias LogitsEditor = @Sendable (_ choice: Choice, _ logits: UnsafeMutableBufferPointer<Float>) throws -> Void

/// A caller's function on its way through C, with the error that it ended with: no error may cross C.
final class Callback<Function> {
    let function: Function
    private var error: Error?

    init(_ function: Function) { self.function = function }

    /// What C knows it by. It does not count as a reference.
    var pointer: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }

    static func from(_ pointer: UnsafeMutableRawPointer) -> Callback<Function> {
        Unmanaged<Callback<Function>>.fromOpaque(pointer).takeUnretainedValue()
    }

    /// Tells C whether to stop.
    func run(_ call: (Function) throws -> Void) -> Int32 {
        do {
            try call(function)
            return 0
        } catch {
            self.error = error
            return 1
        }
    }

    /// Throws the function's own error, else that of the call which it was for.
    func check(_ status: esolm_status) throws {
        if let error {
            self.error = nil
            throw error
        }
        try Esolm.check(status)
    }
}

func callProgress(_ fraction: Double, _ data: UnsafeMutableRawPointer?) -> Int32 {
    guard let data else { return 0 }
    return Callback<ProgressHandler>.from(data).run { report in try report(fraction) }
}

func callLogits(
    _ choice: UnsafePointer<esolm_choice>?, _ logits: UnsafeMutablePointer<Float>?, _ data: UnsafeMutableRawPointer?
) -> Int32 {
    guard let choice = choice?.pointee, let data else { return 0 }
    let seen = Choice(
        sequence: choice.sequence, slot: choice.slot, position: choice.position,
        modelLogits: UnsafeBufferPointer(start: choice.model_logits, count: choice.n_logits))
    let row = UnsafeMutableBufferPointer(start: logits, count: choice.n_logits)
    return Callback<LogitsEditor>.from(data).run { edit in try edit(seen, row) }
}
