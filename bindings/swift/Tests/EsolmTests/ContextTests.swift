import Foundation
import XCTest

import Esolm

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
        // A penalty with which the first alone meets it.
        params.adaptive = Adaptive(.probability, threshold: 0, window: 8, penalty: 2)
        try context.begin([Prompt()], params)
        XCTAssertEqual(try context.step()?.updates.count, 1)
        // A size that is found out, where the window slides.
        params.adaptive = Adaptive(.entropy, threshold: 1, window: Adaptive.windowAuto, inOrder: true)
        try context.begin([Prompt()], params)
        XCTAssertGreaterThan(try context.step()?.updates.count ?? 0, 0)
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
        // C would take what is before the NUL, and a size below 0 as a very large one.
        for wrong in ["", "a\0b"] {
            params.stopStrings = [wrong]
            assertFails(.invalidArgument, try context.begin([prompt], params))
        }
        params.stopStrings = []
        params.maxTokens = -1
        assertFails(.invalidArgument, try context.begin([prompt], params))
        params.maxTokens = 5
        params.constraints = [Constraints(regex: "a*\0b")]
        assertFails(.invalidArgument, try context.begin([prompt], params))
    }

    /// The end-of-text token ends a text, and the work on it, where the model writes it: in the sequential phase of an Eso-LM,
    /// and by an autoregressive model.
    func testEndOfText() throws {
        for file in [path, seed("ar").path] {
            let model = try Model(path: file)
            let context = try Context(model, ContextOptions(length: 16, threads: 1))
            let info = try model.info()
            let eos = try XCTUnwrap(info.eosToken)
            func steps(_ params: GenerateParams) throws -> Int {
                try context.begin([Prompt([5, 6])], params)
                var count = 0
                while try context.step() != nil { count += 1 }
                return count
            }
            var params = GenerateParams()
            params.seed = 7
            params.alpha0 = 0
            params.ignoreEOS = true
            // At one position nothing but that token is allowed.
            params.constraints = [Constraints(allowed: [9: [eos]])]
            XCTAssertEqual(try steps(params), 14)
            let whole = try context.tokens()
            XCTAssertEqual(whole.count, 16)
            XCTAssertEqual(whole[9], eos)
            XCTAssertEqual(try context.stopReason(), .length)
            // The same tokens up to the first that is one, and no step behind it.
            let end = try XCTUnwrap(whole[2...].firstIndex(of: eos))
            params.ignoreEOS = false
            XCTAssertEqual(try steps(params), end - 1)
            XCTAssertEqual(try context.stopReason(), .endOfText)
            XCTAssertEqual(try context.tokens(), Array(whole[...end]))
            // The text does not show it.
            XCTAssertEqual(try context.text(), try model.detokenize(Array(whole[..<end])))
        }
    }

    func testCallbacksGoWithTheGeneration() throws {
        final class Held: Sendable {}
        let context = try newContext()
        let known: [UInt32] = [5, 6, 7, 8]
        let ends: [() throws -> Void] = [
            context.reset, { _ = try context.scoreText(known) }, { _ = try context.score(known) },
            { _ = try context.scoreOrder(known) }, { _ = try context.scoreMasked(known) },
            { try context.restore(try context.save()) },
        ]
        for end in ends {
            weak var held: Held?
            do {
                let object = Held()
                held = object
                var params = few()
                params.logits = { [object] _, _ in _ = object }
                try context.begin([Prompt()], params)
            }
            XCTAssertNotNil(held)
            try end()
            XCTAssertNil(held)
        }
    }

    func testLogits() throws {
        struct Enough: Error {}
        let context = try newContext()
        try context.generate([Prompt()], few())
        let plain = try context.tokens()
        var params = few()
        params.logits = { row, logits in
            XCTAssertEqual(logits.count, row.modelLogits.count)
            XCTAssertTrue(row.sequence == 0 && row.slot < 32)
            try alternating(row, logits)
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

    func testOptions() throws {
        let model = try Model(path: path)
        let prompt = Prompt(try model.tokenize("Once upon a time"))
        var params = few()
        params.temperature = 0
        params.alpha0 = 0
        let plain = try newContext()
        try plain.generate([prompt], params)
        let tokens = try plain.tokens()
        // Other kernels and another cache: the most likely tokens are the same but for rounding.
        for options in [
            ContextOptions(length: 32, batchRows: 3, threads: 1), ContextOptions(length: 32, kvType: .f32),
            ContextOptions(length: 32, threads: 1, ggml: true),
        ] {
            let context = try Context(model, options)
            try context.generate([prompt], params)
            XCTAssertEqual(try context.tokens().prefix(8), tokens.prefix(8))
        }
        XCTAssertGreaterThan(
            try model.memoryUse(ContextOptions(kvType: .f32)).kvCache, try model.memoryUse(ContextOptions()).kvCache)
        XCTAssertLessThan(
            try model.memoryUse(ContextOptions(kvType: .q8_0)).kvCache, try model.memoryUse(ContextOptions()).kvCache)
    }

    func testLookahead() throws {
        let context = try newContext()
        var params = few()
        params.alpha0 = 0
        params.temperature = 0
        params.ignoreEOS = true
        var texts: [[UInt32]] = [], steps: [Int] = []
        for lookahead in [0, 4, GenerateParams.lookaheadAuto] {
            params.lookahead = lookahead
            try context.begin([Prompt()], params)
            var count = 0, proposed = 0, accepted = 0
            while let step = try context.step() {
                count += 1
                proposed += step.proposed
                accepted += step.accepted
            }
            XCTAssertLessThanOrEqual(accepted, proposed)
            XCTAssertEqual(proposed > 0, lookahead != 0)
            XCTAssertEqual(accepted > 0, count < 32)
            texts.append(try context.tokens())
            steps.append(count)
        }
        // The most likely tokens are the same ones, in fewer steps.
        XCTAssertEqual(texts, [texts[0], texts[0], texts[0]])
        XCTAssertLessThan(steps[1], steps[0])
        params.lookahead = 17
        assertFails(.invalidArgument, try context.begin([Prompt()], params))
    }

    func testOrdersAndSchedules() throws {
        let context = try newContext()
        var params = few()
        params.alpha0 = 1
        params.steps = 0
        params.schedule = [5, 3]
        params.order = .leftToRight
        try context.begin([Prompt()], params)
        XCTAssertEqual(try context.order(), Array(0..<32))
        var counts: [Int] = []
        while let step = try context.step() {
            XCTAssertEqual(step.index, counts.count)
            XCTAssertEqual(step.total, 10)
            XCTAssertTrue(step.updates.allSatisfy { $0.sequence == 0 && $0.position < 32 })
            counts.append(step.updates.count)
        }
        XCTAssertEqual(counts, [5] + [Int](repeating: 3, count: 9))
        params.schedule = []
        params.steps = 4
        let last = Array((0..<32 as Range<UInt32>).reversed())
        params.order = .custom(last)
        try context.begin([Prompt()], params)
        XCTAssertEqual(try context.order(), last)
        params.order = .stridedShuffled(8)
        try context.generate([Prompt()], params)
        XCTAssertEqual(try context.order().sorted(), Array(0..<32))
        params.order = .blocks(8)
        try context.generate([Prompt()], params)
        XCTAssertEqual(try context.order().prefix(8).sorted(), Array(0..<8))
        for confidence in [Adaptive.Confidence.margin, .entropy] {
            params = few()
            params.alpha0 = 1
            // No margin is 2, no entropy below 0: one token in each step.
            params.adaptive = Adaptive(confidence, threshold: confidence == .margin ? 2 : 0, window: 4)
            try context.begin([Prompt()], params)
            XCTAssertEqual(try context.step()?.updates.count, 1)
        }
    }

    func testLogProbsAreThoseOfTheScores() throws {
        let context = try newContext()
        var params = few()
        params.alpha0 = 0
        params.temperature = 1
        params.topP = 1
        params.logProbs = true
        params.topLogProbs = 2
        params.ignoreEOS = true
        try context.begin([Prompt()], params)
        var reported: [Double] = []
        while let step = try context.step() {
            reported += try XCTUnwrap(step.logProbs)
            let most = try XCTUnwrap(step.topLogProbs.first)
            XCTAssertGreaterThanOrEqual(most[0].logProb, most[1].logProb)
            if most[0].token == step.updates[0].token {
                XCTAssertEqual(Double(most[0].logProb), reported[reported.count - 1], accuracy: 1e-4)
            }
        }
        let scores = try context.score(try context.tokens())
        for (one, other) in zip(reported, scores) { XCTAssertEqual(one, other, accuracy: 0.05) }
        XCTAssertEqual(reported.count, scores.count)
    }
}
