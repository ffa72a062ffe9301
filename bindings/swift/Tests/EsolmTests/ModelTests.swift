import Foundation
import XCTest

import Esolm

final class ModelTests: XCTestCase {
    func testDefaults() {
        let params = GenerateParams()
        XCTAssertEqual([params.alpha0, Double(params.temperature)], [GenerateParams.alpha0Auto, Double(GenerateParams.auto)])
        XCTAssertEqual(params.topP, GenerateParams.auto)
        XCTAssertEqual(params.topK, GenerateParams.topKAuto)
        XCTAssertEqual([params.minP, params.typicalP, params.topNSigma], [GenerateParams.auto, GenerateParams.auto, GenerateParams.auto])
        XCTAssertEqual([params.seed, UInt64(params.length), UInt64(params.steps)], [0, 0, 0])
        XCTAssertEqual(ScoreParams().orders, 1)
        XCTAssertEqual(PoolOptions().poll, 50)
        XCTAssertEqual(PoolOptions(poll: 0).poll, 0)
        XCTAssertTrue(ChatOptions().addGenerationPrompt)
    }

    func testErrors() throws {
        XCTAssertThrowsError(try Model(path: "/nowhere.gguf")) { error in
            XCTAssertTrue("\(error)".contains("/nowhere.gguf"))
        }
        assertFails(.io, try Model(path: "/nowhere.gguf"))
        assertFails(.device, try Model(path: path, ModelOptions(device: "abacus")))
        assertFails(.invalidArgument, try Model(path: path + "\0"))
        assertFails(.invalidArgument, try Model(path: path, ModelOptions(device: "cpu\0")))
        assertFails(.invalidArgument, try estimateMemory(path: path + "\0"))
        assertFails(.invalidArgument, try Model(path: path).metadata("general.architecture\0"))
        assertFails(.badFile, try Model(bytes: []))
        assertFails(.badFile, try Model(bytes: Array("no model".utf8)))
        XCTAssertFalse(version().isEmpty)
        let statuses: [Status] = [
            .invalidArgument, .io, .badFile, .unsupported, .device, .outOfMemory, .cancelled, .busy, .bufferTooSmall,
            .tokenizer, .notFinite, .internal,
        ]
        XCTAssertEqual(Set(statuses.map(\.description)).count, statuses.count)
        XCTAssertFalse(statuses.contains { $0.description.isEmpty })
        XCTAssertThrowsError(try Model(bytes: [])) { error in
            XCTAssertEqual((error as? EsolmError)?.message, "\(error)")
        }
        let processors = try devices().filter { $0.kind == .cpu && !$0.name.isEmpty && !$0.description.isEmpty }
        XCTAssertEqual(processors.count, 1)
        XCTAssertTrue(try devices().allSatisfy { $0.memoryFree <= $0.memoryTotal })
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
        // What goes on from another text, joined, is the text.
        let halves = try model.tokenize("Once upon") + model.tokenize(" a time", continues: true)
        XCTAssertEqual(try model.detokenize(halves), "Once upon a time")
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
        XCTAssertEqual(try model.tokenize("<|endoftext|>", parseSpecial: true), [try XCTUnwrap(info.eosToken)])
        XCTAssertTrue(model.isEnd(try XCTUnwrap(info.eosToken)) && model.isSpecial(info.maskToken))
        let plain = try model.tokenize("a")[0]
        XCTAssertFalse(model.isEnd(info.maskToken) || model.isSpecial(plain))
        XCTAssertEqual(info.bosToken, info.eosToken)
        XCTAssertNil(info.prependedToken)
        XCTAssertGreaterThan(info.parameters, 1000)
        XCTAssertGreaterThanOrEqual(info.contextLength, 64)
        XCTAssertGreaterThan(info.loadMicroseconds, 0)
        let use = try model.memoryUse(small)
        XCTAssertGreaterThan(use.arena, use.kvCache + use.compute - 1)
        XCTAssertGreaterThan(min(use.kvCache, use.compute), 0)
        XCTAssertEqual(use, try estimateMemory(path: path, ModelOptions(device: "cpu"), small))
        XCTAssertEqual(UInt64(use.weights), info.tensorBytes)
        assertFails(.io, try estimateMemory(path: "/nowhere.gguf"))
        assertFails(.invalidArgument, try model.memoryUse(ContextOptions(length: 1 << 20)))
    }

    /// This file's matrices lie in plain rows.
    func testPlainRowsAreRepacked() throws {
        func written(_ options: ModelOptions) throws -> [UInt32] {
            let model = try Model(path: seed("q8_0").path, options)
            let context = try Context(model, ContextOptions(length: 12, threads: 1))
            var params = GenerateParams()
            params.seed = 7
            params.ignoreEOS = true
            try context.generate([Prompt()], params)
            return try context.tokens()
        }
        let expected = try written(ModelOptions())
        XCTAssertEqual(expected.count, 12)
        XCTAssertEqual(try written(ModelOptions(repacked: true)), expected)
    }

    /// A Qwen2 whose file does not say its mask token is WeDLM once that is given.
    func testMaskToken() throws {
        var file = try Data(contentsOf: seed("llama-qwen2"))
        let masked = ModelOptions(maskToken: 3)
        assertFails(.invalidArgument, try Model(bytes: Array(file), masked)) // it says that it is autoregressive
        let key = try XCTUnwrap(file.range(of: Data("esolm.variant".utf8)))
        file.replaceSubrange(key, with: Data("other.variant".utf8))
        for (options, given) in [(ModelOptions(), false), (masked, true)] {
            let model = try Model(bytes: Array(file), options)
            XCTAssertEqual(model.supports(.diffusion), given)
            let info = try model.info()
            XCTAssertEqual(info.maskToken == 3, given)
        }
    }

    // What the options do is heard in the log, or of the progress.
    func testLockedAndPrefetched() throws {
        final class Heard: @unchecked Sendable {
            private let lock = NSLock()
            private var text = ""
            func add(_ message: String) { lock.withLock { text += message } }
            func take() -> String { lock.withLock { defer { text = "" }; return text } }
        }
        let heard = Heard()
        setLog { _, message in heard.add(message) }
        defer { setLog(nil) }
        func calls(_ options: ModelOptions) throws -> Int {
            final class Count: @unchecked Sendable { var calls = 0 }
            let count = Count()
            var options = options
            options.progress = { _ in count.calls += 1 }
            _ = try Model(path: path, options)
            return count.calls
        }
        let plain = try calls(ModelOptions())
        XCTAssertFalse(heard.take().contains("locked"))
        _ = try calls(ModelOptions(locked: true))
        XCTAssertTrue(heard.take().contains("locked")) // or that it could not be
        XCTAssertGreaterThan(try calls(ModelOptions(prefetched: true)), plain)
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
        let names: [(String?, String)] = [(nil, "(reader): it ends"), ("the archive", "the archive: it ends")]
        for (name, says) in names {
            XCTAssertThrowsError(try Model(size: 100, name: name) { _, _ in 0 }) { error in
                XCTAssertEqual((error as? EsolmError)?.status, .io)
                XCTAssertTrue("\(error)".contains(says), "\(error)")
            }
        }
        assertFails(.invalidArgument, try Model(size: 100, name: "a\0b") { _, _ in 0 })
        XCTAssertThrowsError(try Model(size: 100) { _, _ in throw Damaged() }) { XCTAssertTrue($0 is Damaged) }
        let opened = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        let mapped = try Model(fileDescriptor: opened.fileDescriptor)
        try opened.close()
        XCTAssertEqual(try mapped.info().fileBytes, UInt64(file.count))
        XCTAssertTrue(mapped.supports(.holes))
        let features: [Model.Feature] = [
            .diffusion, .sequential, .orders, .adaptive, .extend, .states, .scoreOrder, .scoreDiffusion, .text, .stepText,
            .lookahead,
        ]
        XCTAssertTrue(features.allSatisfy { mapped.supports($0) })
        XCTAssertFalse(mapped.supports(Model.Feature(rawValue: 99)))
        // Inside of another file.
        let archive = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try (Data("before it".utf8) + file + Data("behind it".utf8)).write(to: archive)
        defer { try? FileManager.default.removeItem(at: archive) }
        let inside = try FileHandle(forReadingFrom: archive)
        let part = try Model(fileDescriptor: inside.fileDescriptor, offset: 9, length: UInt64(file.count))
        XCTAssertEqual(try part.info().fileBytes, UInt64(file.count))
        assertFails(.invalidArgument, try Model(fileDescriptor: inside.fileDescriptor, offset: 9, length: UInt64(file.count + 99)))
        try inside.close()
        XCTAssertEqual(try Model(bytes: Array(file)).info().fileBytes, UInt64(file.count))
        assertFails(.invalidArgument, try Model(fileDescriptor: -1))
        XCTAssertTrue(systemInfo().contains("kernels = "))
    }

    func testLog() throws {
        final class Messages: @unchecked Sendable {
            private let lock = NSLock()
            private var heard: [(LogLevel, String)] = []
            func add(_ level: LogLevel, _ message: String) {
                lock.lock()
                defer { lock.unlock() }
                heard.append((level, message))
            }
            func take() -> [(LogLevel, String)] {
                lock.lock()
                defer { lock.unlock() }
                defer { heard = [] }
                return heard
            }
        }
        let messages = Messages()
        setLog { level, message in messages.add(level, message) }
        defer { setLog(nil) }
        for level in [LogLevel.error, .warn, .info, .debug] {
            try setLogLevel(level)
            _ = try Model(path: path)
            let heard = messages.take()
            XCTAssertEqual(heard.contains { $0.0 == .info && $0.1.contains("mapped") }, level == .info || level == .debug)
        }
        try setLogLevel(.info)
        setLog(nil)
        _ = try Model(path: path)
        XCTAssertEqual(messages.take().count, 0)
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

