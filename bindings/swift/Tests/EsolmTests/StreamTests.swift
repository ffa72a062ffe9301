import XCTest

import Esolm

final class StreamTests: XCTestCase {
    func testStepsAndStream() async throws {
        let model = try Model(path: path)
        let context = try Context(model, small)
        let words = try model.tokenize("Once upon")
        let prompts = [Prompt(words), Prompt([words[0]], positions: [31])]
        try context.generate(prompts, few())
        let once = try context.tokens(1)
        XCTAssertEqual(once[31], words[0])
        XCTAssertTrue(try context.text(0).hasPrefix("Once upon"))

        var written = 0
        for try await step in context.steps(prompts, few()) {
            written += step.updates.count
        }
        XCTAssertEqual(written, 64 - words.count - 1)
        XCTAssertEqual(try context.tokens(1), once)
    }

    func testADroppedStreamStopsTheGeneration() async throws {
        let context = try Context(Model(path: path), ContextOptions(threads: 1))
        var params = GenerateParams()
        params.alpha0 = 0
        for try await _ in context.steps([Prompt()], params) { break }
        // The queue is serial: this stream begins after the first one has stopped.
        var written = 0
        params.length = 16
        for try await step in context.steps([Prompt()], params) { written += step.updates.count }
        XCTAssertEqual(written, 16)
    }

    func testACancelHoldsUntilReset() throws {
        let context = try Context(Model(path: path), small)
        context.cancel()
        assertFails(.cancelled, try context.begin([Prompt()], few()))
        context.resetCancel()
        try context.generate([Prompt()], few())
        try context.reset()
        assertFails(.invalidArgument, try context.text())
    }

    /// A task that is cancelled gets no more steps, and the generation stops; the context can be used again.
    func testACancelledTaskStopsTheGeneration() async throws {
        let context = try Context(Model(path: path), small)
        let computed = Counter(), cancelled = DispatchSemaphore(value: 0)
        var params = few()
        params.alpha0 = 0
        params.ignoreEOS = true
        params.logits = { _, _ in
            // The third token waits until the task is cancelled.
            if computed.add() == 3 { cancelled.wait() }
        }
        let stream = context.steps([Prompt()], params)
        let (steps, seen) = AsyncStream<Void>.makeStream()
        let task = Task { () -> Int in
            var count = 0
            for try await _ in stream {
                count += 1
                seen.yield()
            }
            XCTAssertTrue(Task.isCancelled)
            return count
        }
        var waiting = steps.makeAsyncIterator()
        await waiting.next()
        task.cancel()
        // The stream ends while the third token is being computed.
        let count = try await task.value
        XCTAssertTrue((1...2).contains(count))
        cancelled.signal()
        var written = 0
        params.logits = nil
        for try await step in context.steps([Prompt()], params) { written += step.updates.count }
        XCTAssertEqual(written, 32)
        XCTAssertLessThan(computed.count, 32)
    }

    func testAStreamThatWaitsMayBeDropped() async throws {
        let context = try Context(Model(path: path), small)
        let runs = DispatchSemaphore(value: 0), goesOn = DispatchSemaphore(value: 0)
        let first = Counter(), never = Counter()
        var params = few()
        params.logits = { _, _ in
            if first.add() > 1 { return }
            runs.signal()
            goesOn.wait()
        }
        let running = context.steps([Prompt()], params)
        DispatchQueue.global().sync { runs.wait() }
        params.logits = { _, _ in never.add() }
        do {
            let waiting = context.steps([Prompt()], params)
            let task = Task { for try await _ in waiting {} }
            task.cancel()
            try await task.value
        }
        goesOn.signal()
        var written = 0
        for try await step in running { written += step.updates.count }
        XCTAssertEqual(written, 32) // dropping the other one did not cancel it
        for try await _ in context.steps([Prompt()], few()) {}
        XCTAssertEqual(never.count, 0)
    }

    func testErrorsEndAStream() async throws {
        struct Enough: Error {}
        let context = try Context(Model(path: path), small)
        await assertStreamFails(.invalidArgument, context.steps([]))
        await assertStreamFails(.invalidArgument, context.steps([Prompt([1], positions: [])], few()))
        await assertStreamFails(.invalidArgument, context.steps([Prompt(), Prompt(), Prompt()], few()))
        var params = few()
        params.alpha0 = 0
        params.ignoreEOS = true
        let rows = Counter()
        params.logits = { _, _ in if rows.add() == 5 { throw Enough() } }
        var count = 0
        do {
            for try await _ in context.steps([Prompt()], params) { count += 1 }
            XCTFail("no error")
        } catch {
            XCTAssertTrue(error is Enough)
        }
        XCTAssertEqual(count, 4)
        // Not the stream's task: the context is cancelled.
        params.logits = { [unowned context] _, _ in context.cancel() }
        await assertStreamFails(.cancelled, context.steps([Prompt()], params))
        XCTAssertEqual(try context.stopReason(), .cancelled)
        await assertStreamFails(.cancelled, context.steps([Prompt()], few()))
        context.resetCancel()
        // Another call on the context, in the middle of its stream.
        params.logits = { [unowned context] _, _ in try context.reset() }
        await assertStreamFails(.busy, context.steps([Prompt()], params))
        params.logits = nil
        var written = 0
        for try await step in context.steps([Prompt()], params) { written += step.updates.count }
        XCTAssertEqual(written, 32)
    }

    func testStreamsRunSideBySide() async throws {
        let model = try Model(path: path)
        let own = try Context(model, small)
        var params = few()
        params.stepText = true
        try own.generate([Prompt()], params)
        let expected = try own.text()
        let request = params
        let texts = try await withThrowingTaskGroup(of: String.self) { group -> [String] in
            for _ in 0..<4 {
                group.addTask {
                    let context = try Context(model, small)
                    var text = ""
                    for try await step in context.steps([Prompt()], request) { text += step.texts?.joined() ?? "" }
                    return text
                }
            }
            var texts: [String] = []
            for try await text in group { texts.append(text) }
            return texts
        }
        XCTAssertEqual(texts, [String](repeating: expected, count: 4))
        // Streams of one context run one after the other.
        let streams = (0..<3).map { _ in own.steps([Prompt()], request) }
        for stream in streams {
            var text = ""
            for try await step in stream { text += step.texts?.joined() ?? "" }
            XCTAssertEqual(text, expected)
        }
    }
}
