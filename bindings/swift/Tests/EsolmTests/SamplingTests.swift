import Foundation
import XCTest

import Esolm

private let favourite: UInt32 = 30

/// Each filter, each penalty and each grammar reaches the sampler, and is refused out of range.
final class SamplingTests: XCTestCase {
    private func newContext() throws -> Context { try Context(Model(path: path), small) }

    /// One token after the other, drawn from all of them.
    private func unfiltered() -> GenerateParams {
        var params = few()
        params.steps = 0
        params.alpha0 = 0
        params.temperature = 1
        params.topP = 1
        params.ignoreEOS = true
        return params
    }

    /// Always the most likely token, one of which is by far the likeliest; penalties show in how often it is written in spite of
    /// that.
    private func biased(_ rules: Constraints) -> GenerateParams {
        var params = unfiltered()
        params.temperature = 0
        params.constraints = [rules]
        params.constraints[0].bias = [favourite: 1000]
        return params
    }

    private func written(_ context: Context, _ params: GenerateParams) throws -> [UInt32] {
        try context.generate([Prompt()], params)
        return try context.tokens()
    }

    /// How many tokens the first one is drawn from.
    private func possible(_ context: Context, _ params: GenerateParams) throws -> Int {
        try context.begin([Prompt()], params)
        let row = try context.probabilities([0])[0]
        return row.filter { $0 > 0 }.count
    }

    func testFilters() throws {
        let context = try newContext()
        let text = try written(context, unfiltered())
        let all = try possible(context, unfiltered())
        let filters: [(WritableKeyPath<GenerateParams, Float>, Float, Float)] = [
            (\.topP, 0.5, 1.5), (\.minP, 0.5, 1.5), (\.typicalP, 0.2, 0), (\.topNSigma, 1, Float.nan),
            (\.temperature, 0, Float.nan),
        ]
        for (filter, value, wrong) in filters {
            var params = unfiltered()
            params[keyPath: filter] = value
            let some = try possible(context, params)
            XCTAssertGreaterThan(some, 0)
            XCTAssertLessThan(some, all / 2)
            XCTAssertNotEqual(try written(context, params), text)
            params[keyPath: filter] = wrong
            assertFails(.invalidArgument, try context.begin([Prompt()], params))
        }
        var params = unfiltered()
        params.topK = 5
        XCTAssertEqual(try possible(context, params), 5)

        // Each of them leaves one token, the most likely one.
        params = unfiltered()
        params.temperature = 0
        let most = try written(context, params)
        let limits: [(inout GenerateParams) -> Void] = [
            { $0.topK = 1 }, { $0.topP = 1e-9 }, { $0.minP = 1 }, { $0.topNSigma = 0.0001 },
        ]
        for limit in limits {
            params = unfiltered()
            limit(&params)
            XCTAssertEqual(try written(context, params), most)
        }
    }

    func testPenalties() throws {
        let context = try newContext()
        let cases: [(Constraints, Int)] = [
            (Constraints(), 32), (Constraints(frequencyPenalty: 300), 4), (Constraints(frequencyPenalty: 400), 3),
            (Constraints(presencePenalty: 300), 32), (Constraints(presencePenalty: 2000), 1),
            (Constraints(banned: [favourite]), 0),
        ]
        for (rules, times) in cases {
            let tokens = try written(context, biased(rules))
            XCTAssertEqual(tokens.filter { $0 == favourite }.count, times)
        }
        // Without the bias a strong penalty of each kind leaves no token twice.
        let penalties: [WritableKeyPath<Constraints, Float>] = [
            \.repetitionPenalty, \.frequencyPenalty, \.presencePenalty,
        ]
        for penalty in penalties {
            var params = unfiltered()
            params.temperature = 0
            params.constraints = [Constraints()]
            params.constraints[0][keyPath: penalty] = 1e9
            let tokens = try written(context, params)
            XCTAssertEqual(Set(tokens).count, tokens.count)
            params.constraints[0][keyPath: penalty] = Float.nan
            assertFails(.invalidArgument, try context.begin([Prompt()], params))
        }
    }

    /// How long the first run of the token is that has the bias.
    func testDry() throws {
        let model = try Model(path: path)
        let context = try Context(model, small)
        let cases: [(Dry, Int)] = [
            (Dry(), 32), (Dry(multiplier: 1e6), 3), (Dry(multiplier: 1e6, allowedLength: 4), 5),
            (Dry(multiplier: 600, base: 2), 4), (Dry(multiplier: 600, base: 1), 32),
            // Two are too few to be a repetition.
            (Dry(multiplier: 1e6, allowedLength: 3, range: 2), 32),
            (Dry(multiplier: 1e6, breakers: [favourite]), 32),
        ]
        for (dry, run) in cases {
            let tokens = try written(context, biased(Constraints(dry: dry)))
            XCTAssertEqual(tokens.firstIndex { $0 != favourite } ?? tokens.count, run)
        }
        let mask = try model.info().maskToken
        let wrong: [Dry] = [Dry(multiplier: -1), Dry(multiplier: 1, base: 0.5), Dry(multiplier: 1, breakers: [mask])]
        for dry in wrong {
            assertFails(.invalidArgument, try context.begin([Prompt()], biased(Constraints(dry: dry))))
        }
    }

    /// A library without the feature "grammar" says so.
    func testGrammars() throws {
        let model = try Model(path: path)
        let context = try Context(model, small)
        var params = unfiltered()
        let cases: [(Constraints, Constraints, String)] = [
            (Constraints(regex: "[ab]{3}c"), Constraints(regex: "("), "^[ab]{3}c$"),
            (Constraints(jsonSchema: "{\"enum\": [\"cat\", \"dog\"]}"), Constraints(jsonSchema: "{"), "^\"(cat|dog)\"$"),
        ]
        for (rules, wrong, pattern) in cases {
            params.constraints = [rules]
            if model.supports(.grammar) {
                try context.generate([Prompt()], params)
                let text = try context.text()
                XCTAssertNotNil(text.range(of: pattern, options: .regularExpression), text)
                params.constraints = [wrong]
                assertFails(.invalidArgument, try context.begin([Prompt()], params))
            } else {
                assertFails(.unsupported, try context.generate([Prompt()], params))
            }
        }
        params.constraints = [Constraints(regex: "a", jsonSchema: "{}")]
        assertFails(.invalidArgument, try context.begin([Prompt()], params))
    }

    func testSeedsAndSteps() throws {
        let context = try newContext()
        var params = unfiltered()
        let text = try written(context, params)
        XCTAssertEqual(try written(context, params), text)
        params.seed += 1
        XCTAssertNotEqual(try written(context, params), text)
        params.alpha0 = 1
        for steps in [4, 9] {
            params.steps = steps
            try context.begin([Prompt()], params)
            let step = try context.step()
            XCTAssertLessThanOrEqual(try XCTUnwrap(step).total, steps)
        }
    }
}
