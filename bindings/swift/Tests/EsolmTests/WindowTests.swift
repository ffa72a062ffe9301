import XCTest

import Esolm

/// Models that fill several places in a step: WeDLM its window that slides, BD3-LM its blocks.
final class WindowTests: XCTestCase {
    private let oneByOne = [Int](repeating: 1, count: 14)

    /// How many places each step of a generation fills, which are all but the first two, and the tokens.
    private func fills(
        _ model: Model, _ change: (inout GenerateParams) -> Void = { _ in }
    ) throws -> (counts: [Int], tokens: [UInt32]) {
        let context = try Context(model, ContextOptions(length: 16, threads: 1))
        let info = try model.info()
        var params = GenerateParams()
        params.seed = 7
        params.ignoreEOS = true
        change(&params)
        try context.begin([Prompt([5, 6])], params)
        var counts: [Int] = []
        while let step = try context.step() { counts.append(step.updates.count) }
        let tokens = try context.tokens()
        XCTAssertEqual(counts.reduce(0, +), 14)
        XCTAssertEqual(tokens.count, 16)
        XCTAssertEqual(tokens.prefix(2), [5, 6])
        XCTAssertTrue(tokens.allSatisfy { Int($0) < info.vocabSize && $0 != info.maskToken }, "\(tokens)")
        XCTAssertEqual(try context.stopReason(), .length)
        XCTAssertLessThanOrEqual(try context.cachedTokens(), 16)
        return (counts, tokens)
    }

    func testWindows() throws {
        let model = try Model(path: seed("wedlm").path)
        let own = try fills(model), again = try fills(model)
        XCTAssertEqual(own.counts, again.counts)
        XCTAssertEqual(own.tokens, again.tokens)
        // Certain of each place, and of none.
        XCTAssertEqual(try fills(model) { $0.adaptive = Adaptive(.entropy, threshold: 100, window: 4) }.counts, [4, 4, 4, 2])
        XCTAssertEqual(try fills(model) { $0.adaptive = Adaptive(.entropy, threshold: 0, window: 4) }.counts, oneByOne)
        // WeDLM's rule with another window.
        let spelled = Adaptive(.entropy, threshold: 0.4, window: 2, penalty: 0.02, inOrder: true)
        let (narrow, same) = (try fills(model) { $0.adaptive = Adaptive(window: 2) }, try fills(model) { $0.adaptive = spelled })
        XCTAssertEqual(narrow.counts, same.counts)
        XCTAssertEqual(narrow.tokens, same.tokens)
        let auto = try fills(model) { $0.adaptive = Adaptive(.entropy, threshold: 100, window: Adaptive.windowAuto) }
        XCTAssertLessThan(auto.counts.count, 14)
        let context = try Context(model, ContextOptions(length: 16))
        let rows = try context.measurePassOverhead()
        XCTAssert((0.05...256).contains(rows), "\(rows)")
        try context.setPassOverhead(rows)
        assertFails(.invalidArgument, try context.setPassOverhead(-1))
    }

    func testBlocks() throws {
        let model = try Model(path: seed("bd3lm").path)
        let own = try fills(model), again = try fills(model)
        XCTAssertEqual(own.counts, oneByOne)
        XCTAssertEqual(own.counts, again.counts)
        XCTAssertEqual(own.tokens, again.tokens)
        XCTAssertLessThanOrEqual(try fills(model) { $0.steps = 2 }.counts.count, 8) // two of each block
        XCTAssertEqual(try fills(model) { $0.schedule = [4] }.counts, [2, 4, 4, 4])
    }
}
