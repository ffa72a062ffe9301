import XCTest

import Esolm

final class SequenceTests: XCTestCase {
    private func newContext() throws -> Context { try Context(Model(path: path), small) }

    func testSequences() throws {
        struct Enough: Error {}
        let single = try newContext(), context = try newContext()
        var requests = [GenerateParams](repeating: few(), count: 4)
        var expected: [String] = []
        for i in requests.indices {
            requests[i].seed = UInt64(i)
            requests[i].steps = 3 + i
            requests[i].stepText = true
            if i == 2 { requests[i].logits = alternating }
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
        // The first came from the other sequence, four were fed.
        XCTAssertEqual(try parts.cachedTokens(joining), 5)
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

        // And behind its text.
        var before = try context.tokens(number)
        var answer = few()
        answer.length = 0
        answer.maxTokens = 3
        for keep in [10, 4] {
            try context.appendSequence(number, keep: keep, Prompt([8, 9]), answer)
            while try context.step() != nil {}
            let after = try context.tokens(number)
            XCTAssertEqual(Array(after.prefix(keep)), Array(before.prefix(keep)))
            XCTAssertEqual(Array(after[keep..<keep + 2]), [8, 9])
            XCTAssertEqual(after.count, keep + 5)
            before = after
        }
        let state = try context.saveSequence(number)
        let text = try context.tokens(number)
        try context.removeSequence(number)
        let again = try context.restoreSequence(state)
        XCTAssertEqual(try context.tokens(again), text)
        assertFails(.badFile, try context.restoreSequence(Array(state.dropLast())))
        assertFails(.badFile, try context.restoreSequence([]))
        assertFails(.invalidArgument, try context.appendSequence(9, Prompt(), whole))
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
        let score = try context.scoreText(words, params, progress: { _ in reports += 1 })
        XCTAssertEqual(reports, 1)
        XCTAssertEqual(score.nll, -all.reduce(0, +), accuracy: 1e-3)
        XCTAssertGreaterThan(min(score.diffusion, score.diffusionError), 0)
        XCTAssertGreaterThan(min(score.sequential, score.sequentialError), 0)
        XCTAssertEqual(score.logProbs, all)
        XCTAssertEqual(score.scoredTokens, words.count)
        params.draws = 1
        params.orders = 2
        params.randomOrder = true
        params.seed = 5
        let random = try context.scoreText(words, params)
        XCTAssertTrue(random.diffusionError.isNaN && random.sequentialError.isNaN)
        XCTAssertNil(random.logProbs)
        XCTAssertGreaterThan(random.nll, 0)
        XCTAssertNotEqual(random.nll, score.nll)
        struct Enough: Error {}
        XCTAssertThrowsError(try context.scoreText(words, progress: { _ in throw Enough() })) { XCTAssertTrue($0 is Enough) }
    }
}
