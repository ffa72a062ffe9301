import EsolmSystem

/// Called with the fraction of a long operation that is done, from 0 to 1 and never decreasing. If it throws, the operation
/// stops and its call throws that error.
public typealias ProgressHandler = (_ fraction: Double) throws -> Void

/// Reads bytes of a model's file from `offset` on into `buffer`, and returns how many there are: as many as fit, or fewer but at
/// least one; 0 if the file ends there. If it throws, opening fails with that error.
public typealias ReadHandler = (_ offset: UInt64, _ buffer: UnsafeMutableRawBufferPointer) throws -> Int

/// A row of logits, from which the token of one position is about to be drawn.
public struct LogitsRow {
    /// The index of its prompt, or the number that `Context.addSequence` returned.
    public let sequence: UInt32
    /// Its index in generation order.
    public let slot: UInt32
    /// Its index in the text.
    public let position: UInt32
    /// The network's output, valid during the call.
    public let modelLogits: UnsafeBufferPointer<Float>
}

/// Reads and changes the logits that a token is drawn from, one for each token of the vocabulary. It is called after the
/// constraints and before temperature, topK and topP. Minus infinity excludes a token. The buffer is valid during the call.
/// If it throws, the step is undone and `Context.step` throws that error.
///
/// It runs in `Context.step`, on its thread. Calls on the context that compute fail with `Status.busy` meanwhile; texts can be
/// read.
public typealias LogitsCallback = @Sendable (_ row: LogitsRow, _ logits: UnsafeMutableBufferPointer<Float>) throws -> Void

/// Passes a caller's function to C, and holds the error that it throws until the C call has returned.
final class Callback<Function> {
    let function: Function
    private var error: Error?

    init(_ function: Function) { self.function = function }

    /// The user data for C. It is not a counted reference.
    var pointer: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }

    static func from(_ pointer: UnsafeMutableRawPointer) -> Callback<Function> {
        Unmanaged<Callback<Function>>.fromOpaque(pointer).takeUnretainedValue()
    }

    /// Calls the function, and returns to C whether to stop.
    func run(_ call: (Function) throws -> Void) -> Int32 {
        do {
            try call(function)
            return 0
        } catch {
            self.error = error
            return 1
        }
    }

    /// Throws the function's own error, else the error of the C call.
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
    _ row: UnsafePointer<esolm_logits_row>?, _ logits: UnsafeMutablePointer<Float>?, _ data: UnsafeMutableRawPointer?
) -> Int32 {
    guard let row = row?.pointee, let data else { return 0 }
    let seen = LogitsRow(
        sequence: row.sequence, slot: row.slot, position: row.position,
        modelLogits: UnsafeBufferPointer(start: row.model_logits, count: row.n_logits))
    let numbers = UnsafeMutableBufferPointer(start: logits, count: row.n_logits)
    return Callback<LogitsCallback>.from(data).run { callback in try callback(seen, numbers) }
}

func callRead(
    _ offset: UInt64, _ buffer: UnsafeMutableRawPointer?, _ size: Int, _ data: UnsafeMutableRawPointer?
) -> Int64 {
    guard let buffer, let data else { return -1 }
    var count = 0
    let stop = Callback<ReadHandler>.from(data).run { read in
        count = try read(offset, UnsafeMutableRawBufferPointer(start: buffer, count: size))
    }
    return stop == 0 ? Int64(count) : -1
}
