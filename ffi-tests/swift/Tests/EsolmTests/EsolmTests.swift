import Foundation
import XCTest

@testable import Esolm

final class EsolmTests: XCTestCase {
    private func model() throws -> Model {
        let path = ProcessInfo.processInfo.environment["ESOLM_MODEL"] ?? "../../models/fairy-q8_0.gguf"
        return try Model(path: path)
    }

    private func few() -> GenerateParams {
        var params = GenerateParams()
        params.steps = 6
        params.seed = 7
        params.alpha0 = 0.8
        return params
    }

    func testErrors() throws {
        XCTAssertThrowsError(try Model(path: "/nowhere.gguf")) { error in
            XCTAssertTrue("\(error)".contains("/nowhere.gguf"))
        }
        let context = try Context(model(), length: 32, threads: 1)
        XCTAssertThrowsError(try context.begin([Prompt([1], positions: [1, 2])]))
        XCTAssertThrowsError(try context.begin([Prompt([4_000_000_000])]))
        XCTAssertThrowsError(try context.text(5))
    }

    func testTokens() throws {
        let model = try model()
        for text in ["", "Once upon a time", String(repeating: "a very long text, ", count: 99)] {
            XCTAssertEqual(try model.detokenize(model.tokenize(text)), text)
        }
        XCTAssertGreaterThan(try model.info().vocabSize, 2)
    }

    func testStepsAndStream() async throws {
        let model = try model()
        let context = try Context(model, sequences: 2, length: 32, threads: 1)
        let words = try model.tokenize("Once upon")
        let prompts = [Prompt(words), Prompt([words[0]], positions: [31])]
        try context.begin(prompts, few())
        while try context.step() != nil {}
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
        let context = try Context(model(), threads: 1)
        var params = GenerateParams()
        params.alpha0 = 0
        for try await _ in context.steps([Prompt()], params) { break }
        // The queue is serial: this one begins after the first has stopped.
        var last: Step?
        params.length = 16
        for try await step in context.steps([Prompt()], params) { last = step }
        XCTAssertNotNil(last)
    }

    func testAContextKeepsItsModel() throws {
        var model: Model? = try model()
        let context = try Context(model!, length: 32, threads: 1)
        model = nil
        try context.begin([Prompt()], few())
        while try context.step() != nil {}
        XCTAssertEqual(try context.tokens().count, 32)
    }
}
