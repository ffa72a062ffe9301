import Foundation
import XCTest

import Esolm

let path = ProcessInfo.processInfo.environment["ESOLM_MODEL"] ?? "../../models/stories-q8_0.gguf"
let small = ContextOptions(sequences: 2, length: 32, threads: 1)

func few() -> GenerateParams {
    var params = GenerateParams()
    params.steps = 6
    params.seed = 7
    params.alpha0 = 0.8
    return params
}

/// Checks that a call fails with this status.
func assertFails<T>(
    _ status: Status, _ call: @autoclosure () throws -> T, file: StaticString = #filePath, line: UInt = #line
) {
    XCTAssertThrowsError(try call(), file: file, line: line) { error in
        XCTAssertEqual((error as? EsolmError)?.status, status, "\(error)", file: file, line: line)
    }
}

final class ModelTests: XCTestCase {
    func testDefaults() {
        let params = GenerateParams()
        XCTAssertEqual([params.alpha0, Double(params.temperature)], [GenerateParams.alpha0Auto, Double(GenerateParams.auto)])
        XCTAssertEqual(params.topP, GenerateParams.auto)
        XCTAssertEqual(params.topK, GenerateParams.topKAuto)
        XCTAssertEqual(params.topK, 0)
    }

    func testErrors() throws {
        XCTAssertThrowsError(try Model(path: "/nowhere.gguf")) { error in
            XCTAssertTrue("\(error)".contains("/nowhere.gguf"))
        }
        assertFails(.io, try Model(path: "/nowhere.gguf"))
        assertFails(.device, try Model(path: path, ModelOptions(device: "abacus")))
        assertFails(.badFile, try Model(bytes: []))
        assertFails(.badFile, try Model(bytes: Array("no model".utf8)))
        XCTAssertFalse(version().isEmpty)
        XCTAssertEqual(Status.busy.description.isEmpty, false)
        XCTAssertEqual(try devices().filter { $0.kind == .cpu && !$0.name.isEmpty }.count, 1)
    }

    func testTokens() throws {
        let model = try Model(path: path)
        for text in ["", "Once upon a time", "Zoë, 5 €", String(repeating: "a very long text, ", count: 99)] {
            let tokens = try model.tokenize(text)
            XCTAssertEqual(try model.detokenize(tokens), text)
            XCTAssertEqual(try tokens.flatMap { try model.bytes(of: $0) }, Array(text.utf8))
        }
        XCTAssertEqual(try model.tokenize("[MASK]<|endoftext|>", parseSpecial: true).count, 2)
        XCTAssertGreaterThan(try model.tokenize("[MASK]").count, 1)
        XCTAssertEqual(try model.template("<|endoftext|> {{mask 2}}", parseSpecial: true).length, 3)
        assertFails(.tokenizer, try model.detokenize([4_000_000_000]))
        let (prompt, length) = try model.template("Once{{mask 9}} end.")
        XCTAssertEqual(length, prompt.tokens.count + 9)
        XCTAssertEqual(prompt.positions?.count, prompt.tokens.count)
        assertFails(.invalidArgument, try model.template("{{mask"))
    }

    func testDescription() throws {
        let model = try Model(path: path, ModelOptions(device: "cpu"))
        let keys = try model.metadataKeys()
        XCTAssertGreaterThan(keys.count, 3)
        for key in keys { XCTAssertFalse(try model.metadata(key).isEmpty) }
        XCTAssertEqual(try model.metadata("general.architecture"), "esolm")
        assertFails(.invalidArgument, try model.metadata("no.such.key"))
        let info = try model.info()
        XCTAssertGreaterThan(info.vocabSize, 2)
        XCTAssertLessThan(Int(info.maskToken), info.vocabSize)
        let use = try model.memoryUse(small)
        XCTAssertEqual(use, try estimateMemory(path: path, ModelOptions(device: "cpu"), small))
        XCTAssertEqual(UInt64(use.weights), info.tensorBytes)
        assertFails(.io, try estimateMemory(path: "/nowhere.gguf"))
        assertFails(.invalidArgument, try model.memoryUse(ContextOptions(length: 1 << 20)))
    }

    func testReaders() throws {
        struct Damaged: Error {}
        let file = try Data(contentsOf: URL(fileURLWithPath: path))
        let options = ModelOptions(locked: true, prefetched: true)
        let model = try Model(size: UInt64(file.count), options) { offset, buffer in
            let start = Int(offset)
            let count = min(buffer.count, file.count - start, 100_000)
            file.copyBytes(to: buffer.bindMemory(to: UInt8.self), from: start..<start + count)
            return count
        }
        XCTAssertEqual(try model.info().fileBytes, UInt64(file.count))
        assertFails(.io, try Model(size: 100) { _, _ in 0 })
        XCTAssertThrowsError(try Model(size: 100) { _, _ in throw Damaged() }) { XCTAssertTrue($0 is Damaged) }
        let opened = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        let mapped = try Model(fileDescriptor: opened.fileDescriptor)
        try opened.close()
        XCTAssertEqual(try mapped.info().fileBytes, UInt64(file.count))
        XCTAssertTrue(mapped.supports(.holes))
        XCTAssertFalse(mapped.supports(Model.Feature(rawValue: 99)))
        assertFails(.invalidArgument, try Model(fileDescriptor: -1))
        XCTAssertTrue(systemInfo().contains("kernels = "))
        try setLogLevel(.debug)
        try setLogLevel(.info)
    }

    func testProgress() throws {
        struct Enough: Error {}
        for copied in [false, true] {
            var reports: [Double] = []
            _ = try Model(path: path, ModelOptions(copied: copied) { fraction in reports.append(fraction) })
            XCTAssertEqual(reports.last, 1)
            XCTAssertEqual(reports, reports.sorted())
            // Cancelled at each of the reports.
            for stop in 1...reports.count {
                var seen = 0
                let stopping = ModelOptions(copied: copied) { _ in
                    seen += 1
                    if seen == stop { throw Enough() }
                }
                XCTAssertThrowsError(try Model(path: path, stopping)) { XCTAssertTrue($0 is Enough) }
                XCTAssertEqual(seen, stop)
            }
        }
    }
}

final class ContextTests: XCTestCase {
    private func newContext() throws -> Context { try Context(Model(path: path), small) }

    func testBadRequests() throws {
        let context = try newContext()
        assertFails(.invalidArgument, try context.begin([]))
        assertFails(.invalidArgument, try context.begin([Prompt([1], positions: [1, 2])]))
        assertFails(.invalidArgument, try context.begin([Prompt([1, 2], positions: [3, 3])]))
        assertFails(.invalidArgument, try context.begin([Prompt([4_000_000_000])]))
        assertFails(.invalidArgument, try context.text(5))
        var params = few()
        params.schedule = [4, 0]
        assertFails(.invalidArgument, try context.begin([Prompt()], params))
        params = few()
        params.constraints = [Constraints(banned: [1 << 30])]
        assertFails(.invalidArgument, try context.begin([Prompt()], params))
        params = few()
        params.order = .custom([0, 1])
        assertFails(.invalidArgument, try context.begin([Prompt()], params))
        XCTAssertNil(try context.step())
    }

    func testAContextKeepsItsModel() throws {
        var model: Model? = try Model(path: path)
        let context = try Context(model!, small)
        model = nil
        try context.generate([Prompt()], few())
        XCTAssertEqual(try context.tokens().count, 32)
    }

    func testSampling() throws {
        let context = try newContext()
        var greedy = few()
        greedy.temperature = 0
        greedy.alpha0 = 0
        greedy.constraints = [Constraints(presencePenalty: 1e6)]
        try context.generate([Prompt()], greedy)
        let tokens = try context.tokens()
        XCTAssertEqual(Set(tokens).count, tokens.count)
        greedy.constraints = [Constraints(dry: Dry(multiplier: -1))]
        assertFails(.invalidArgument, try context.begin([Prompt()], greedy))

        greedy.constraints = [Constraints(regex: "a", jsonSchema: "{}")]
        assertFails(.invalidArgument, try context.begin([Prompt()], greedy))

        var params = few()
        params.alpha0 = 0
        params.minP = 0.01
        params.topLogProbs = 4
        try context.begin([Prompt()], params)
        for position in try context.order() {
            let probabilities = try context.probabilities([position])
            XCTAssertEqual(try context.logits([position]).count, 1)
            let step = try context.step()
            XCTAssertEqual(step?.topLogProbs.first?.count, 4)
            let token = try XCTUnwrap(step?.updates.first?.token)
            XCTAssertGreaterThan(probabilities[0][Int(token)], 0)
        }
        assertFails(.invalidArgument, try context.logits([0]))
    }

    func testRequests() throws {
        let context = try newContext()
        var params = few()
        params.order = .strided(8)
        params.alpha0 = 1
        try context.begin([Prompt()], params)
        XCTAssertEqual(try context.order(), (0..<32).map { UInt32($0 / 4 + $0 % 4 * 8) })

        params = few()
        params.logProbs = true
        params.constraints = [Constraints(allowed: [3: [40]], bias: [30: 1000])]
        try context.begin([Prompt()], params)
        while let step = try context.step() {
            XCTAssertEqual(step.logProbs?.count, step.updates.count)
        }
        let tokens = try context.tokens()
        XCTAssertEqual(tokens[3], 40)
        XCTAssertEqual(tokens[4], 30)

        // A threshold that no token meets, and one that every token meets.
        for (threshold, count) in [(Float(2), 1), (0, 8)] {
            params = few()
            params.alpha0 = 1
            params.adaptive = Adaptive(.probability, threshold: threshold, window: 8)
            try context.begin([Prompt()], params)
            XCTAssertEqual(try context.step()?.updates.count, count)
        }
    }

    func testPool() throws {
        let pool = try Pool(PoolOptions(threads: 2))
        XCTAssertEqual(pool.threads, 2)
        let model = try Model(path: path)
        let contexts = try (0..<2).map { _ in try Context(model, ContextOptions(length: 32, pool: pool)) }
        try contexts[1].setThreads(1)
        XCTAssertEqual(try contexts.map { try $0.threads() }, [2, 1])
        assertFails(.invalidArgument, try contexts[1].setThreads(3))
        for context in contexts { try context.generate([Prompt()], few()) }
        XCTAssertEqual(try contexts[0].tokens(), try contexts[1].tokens())
        assertFails(.invalidArgument, try Pool(PoolOptions(poll: 101)))
    }

    func testStopRules() throws {
        let model = try Model(path: path)
        let context = try Context(model, ContextOptions(length: 64, threads: 1))
        let prompt = Prompt(try model.tokenize("Once upon a time"))
        var params = GenerateParams()
        params.seed = 3
        params.ignoreEOS = true
        try context.generate([prompt], params)
        let (whole, all) = (try context.text(), try context.tokens())
        XCTAssertEqual(all.count, 64)
        XCTAssertEqual(try context.stopReason(), .length)
        params.maxTokens = 5
        try context.generate([prompt], params)
        XCTAssertEqual(try context.tokens().count, prompt.tokens.count + 5)
        params.maxTokens = 0
        params.stopTokens = [all[20]]
        try context.generate([prompt], params)
        XCTAssertLessThanOrEqual(try context.tokens().count, 21)
        XCTAssertEqual(try context.stopReason(), .stopToken)
        params.stopTokens = []
        let stop = String(whole.dropLast(15).suffix(5))
        params.stopStrings = ["no such text", stop]
        try context.generate([prompt], params)
        XCTAssertTrue(whole.hasPrefix(try context.text() + stop))
        XCTAssertEqual(try context.stopReason(), .stopString)
        // The texts of the steps, joined, are the text.
        let text = try context.text()
        params.stepText = true
        try context.begin([prompt], params)
        var joined = try context.text()
        XCTAssertEqual(joined, "Once upon a time")
        var last: StopReason?
        while let step = try context.step() {
            joined += step.texts?.first ?? ""
            last = step.stopReasons?.first
            XCTAssertEqual(try context.text(), joined)
        }
        XCTAssertEqual(joined, text)
        XCTAssertEqual(last, .stopString)
        params.stopStrings = [""]
        assertFails(.invalidArgument, try context.begin([prompt], params))
    }

    func testLogits() throws {
        struct Enough: Error {}
        let context = try newContext()
        try context.generate([Prompt()], few())
        let plain = try context.tokens()
        var params = few()
        params.logits = { row, logits in
            XCTAssertEqual(logits.count, row.modelLogits.count)
            for token in logits.indices where token != 30 + Int(row.position) % 2 { logits[token] = -Float.infinity }
        }
        try context.generate([Prompt()], params)
        XCTAssertEqual(try context.tokens(), (0..<32).map { UInt32(30 + $0 % 2) })
        params.logits = { _, _ in throw Enough() }
        XCTAssertThrowsError(try context.generate([Prompt()], params)) { XCTAssertTrue($0 is Enough) }
        params.logits = { [unowned context] _, _ in _ = try context.text() }
        try context.generate([Prompt()], params)
        params.logits = { [unowned context] _, _ in _ = try context.save() }
        assertFails(.busy, try context.generate([Prompt()], params))
        try context.generate([Prompt()], few())
        XCTAssertEqual(try context.tokens(), plain)
    }

    func testSequences() throws {
        struct Enough: Error {}
        let single = try newContext(), context = try newContext()
        var requests = [GenerateParams](repeating: few(), count: 4)
        var expected: [String] = []
        for i in requests.indices {
            requests[i].seed = UInt64(i)
            requests[i].steps = 3 + i
            requests[i].stepText = true
            if i == 2 {
                requests[i].logits = { row, logits in
                    for token in logits.indices where token != 30 + Int(row.position) % 2 {
                        logits[token] = -Float.infinity
                    }
                }
            }
            try single.generate([Prompt([5, 6, 7])], requests[i])
            expected.append(try single.text())
        }
        var texts: [UInt32: String] = [:], of: [UInt32: Int] = [:], next = 0, finished = 0
        while finished < requests.count {
            if of.count < 2 && next < requests.count {
                let number = try context.addSequence(Prompt([5, 6, 7]), requests[next])
                XCTAssertEqual(try context.cachedTokens(number), next == 0 ? 0 : 3)
                texts[number] = try context.text(number)
                of[number] = next
                next += 1
            } else if of.count == 2 {
                assertFails(.invalidArgument, try context.addSequence(Prompt(), few()))
            }
            guard let step = try context.step(), let new = step.texts, let reasons = step.stopReasons else {
                return XCTFail("no step")
            }
            for (number, request) in of {
                texts[number, default: ""] += new[Int(number)]
                if reasons[Int(number)] == .none { continue }
                XCTAssertEqual(texts[number], expected[request])
                try context.removeSequence(number)
                of[number] = nil
                finished += 1
            }
        }
        XCTAssertNil(try context.step())
        assertFails(.invalidArgument, try context.removeSequence(0))

        // A long prompt joins in parts; meanwhile the other sequence writes.
        let long = Prompt([UInt32](5..<23))
        let parts = try Context(Model(path: path), ContextOptions(sequences: 2, length: 32, promptRows: 4, threads: 1))
        let writing = try parts.addSequence(Prompt([5]), requests[0])
        _ = try parts.step()
        let joining = try parts.addSequence(long, requests[1])
        XCTAssertEqual(try parts.step()?.updates.allSatisfy { $0.sequence == writing }, true)
        XCTAssertEqual(try parts.cachedTokens(joining), 4)
        while try parts.step() != nil {}
        try single.generate([long], requests[1])
        XCTAssertEqual(try parts.text(joining), try single.text())

        // One that fails does not end the other.
        let good = try context.addSequence(Prompt([5, 6, 7]), requests[2])
        var failing = few()
        failing.logits = { _, logits in
            for token in logits.indices { logits[token] = -Float.infinity }
        }
        let bad = try context.addSequence(Prompt(), failing)
        assertFails(.invalidArgument, try context.step())
        XCTAssertEqual(try context.stopReason(bad), .error)
        XCTAssertEqual(try context.stopReason(good), StopReason.none)
        try context.removeSequence(bad)
        failing.logits = { _, _ in throw Enough() }
        let thrower = try context.addSequence(Prompt(), failing)
        XCTAssertThrowsError(try context.step()) { XCTAssertTrue($0 is Enough) }
        try context.removeSequence(thrower)
        while try context.step() != nil {}
        XCTAssertEqual(try context.text(good), expected[2])

        // One goes on.
        var half = few(), whole = few()
        half.length = 12
        whole.seed = 8
        try single.generate([Prompt()], half)
        try single.extend([Prompt()], whole)
        while try single.step() != nil {}
        let number = try context.addSequence(Prompt(), half)
        while try context.step() != nil {}
        assertFails(.invalidArgument, try context.extendSequence(9, Prompt(), whole))
        try context.extendSequence(number, Prompt(), whole)
        while try context.step() != nil {}
        XCTAssertEqual(try context.tokens(number), try single.tokens())
    }

    func testStates() throws {
        let one = try newContext(), two = try newContext()
        var half = few(), whole = few()
        half.length = 12
        whole.seed = 8
        try one.generate([Prompt()], half)
        var state = try one.save()
        try two.restore(state)
        for context in [one, two] {
            try context.extend([Prompt([9], positions: [20])], whole)
            while try context.step() != nil {}
        }
        let tokens = try one.tokens()
        XCTAssertEqual(tokens[20], 9)
        XCTAssertEqual(tokens, try two.tokens())
        assertFails(.invalidArgument, try two.extend([Prompt()], half)) // shorter
        state[state.count / 2] ^= 64
        assertFails(.badFile, try two.restore(state))
        assertFails(.badFile, try two.restore([]))
        XCTAssertGreaterThan(try two.profile().blocks, 0)
    }

    func testScores() throws {
        let model = try Model(path: path)
        let context = try Context(model, small)
        let words = try model.tokenize("Once upon a time there was")
        let all = try context.score(words)
        XCTAssertEqual(all.count, words.count)
        let last = try context.scoreOrder(words, known: words.count - 1)
        XCTAssertEqual(last.count, 1)
        XCTAssertEqual(last[0], all[words.count - 1], accuracy: 1e-3)
        XCTAssertEqual(try context.scoreMasked(words, known: words.count - 1)[0], last[0], accuracy: 1e-3)
        XCTAssertEqual(try context.scoreOrder(words, known: words.count), [])
        assertFails(.invalidArgument, try context.scoreOrder(words, known: words.count + 1))
        assertFails(.invalidArgument, try context.scoreOrder(words, order: [0]))
        assertFails(.invalidArgument, try context.score([]))
        var params = ScoreParams()
        params.draws = 2
        params.alpha0 = 0.5
        var reports = 0
        let score = try context.scoreText(words, params) { _ in reports += 1 }
        XCTAssertEqual(reports, 1)
        XCTAssertEqual(score.nll, -all.reduce(0, +), accuracy: 1e-3)
        XCTAssertGreaterThan(score.diffusion, 0)
    }
}

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
}
