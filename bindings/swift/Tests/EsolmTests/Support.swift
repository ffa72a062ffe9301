import Foundation
import XCTest

import Esolm

let path = ProcessInfo.processInfo.environment["ESOLM_MODEL"] ?? "../../models/stories-q8_0.gguf"
let small = ContextOptions(sequences: 2, length: 32, threads: 1)

/// One of the small models that fuzzing begins with.
func seed(_ name: String) -> URL {
    let source = (0..<5).reduce(URL(fileURLWithPath: #filePath)) { url, _ in url.deletingLastPathComponent() }
    return source.appendingPathComponent("fuzz/seeds/gguf/\(name)")
}

func few() -> GenerateParams {
    var params = GenerateParams()
    params.steps = 6
    params.seed = 7
    params.alpha0 = 0.8
    return params
}

/// Writes the tokens 30 and 31 in turn.
let alternating: LogitsCallback = { row, logits in
    for token in logits.indices where token != 30 + Int(row.position) % 2 { logits[token] = -Float.infinity }
}

/// Checks that a call fails with this status.
func assertFails<T>(
    _ status: Status, _ call: @autoclosure () throws -> T, file: StaticString = #filePath, line: UInt = #line
) {
    XCTAssertThrowsError(try call(), file: file, line: line) { error in
        XCTAssertEqual((error as? EsolmError)?.status, status, "\(error)", file: file, line: line)
    }
}

/// The same for what runs in a task.
func assertStreamFails(
    _ status: Status, _ stream: AsyncThrowingStream<Step, Error>, file: StaticString = #filePath, line: UInt = #line
) async {
    do {
        for try await _ in stream {}
        XCTFail("no error", file: file, line: line)
    } catch {
        XCTAssertEqual((error as? EsolmError)?.status, status, "\(error)", file: file, line: line)
    }
}

/// A number that several threads count up.
final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private var value = 0

    @discardableResult
    func add() -> Int {
        lock.lock()
        defer { lock.unlock() }
        value += 1
        return value
    }

    var count: Int {
        lock.lock()
        defer { lock.unlock() }
        return value
    }
}
