import Foundation
import XCTest

import Esolm

final class ThreadTests: XCTestCase {
    private func write(_ context: Context) throws -> [UInt32] {
        try context.generate([Prompt()], few())
        return try context.tokens()
    }

    func testAPoolIsSharedByContexts() throws {
        let model = try Model(path: path)
        let own = try write(Context(model, small))
        var pool: Pool? = try Pool(PoolOptions(threads: 2, cpus: [0], nice: 1, poll: 0))
        XCTAssertEqual(pool?.threads, 2)
        let shared = ContextOptions(length: 32, pool: pool)
        let one = try Context(model, shared), two = try Context(model, shared)
        XCTAssertEqual(try one.threads(), 2)
        XCTAssertEqual(try write(one), own)
        try two.setThreads(1)
        XCTAssertEqual(try two.threads(), 1)
        XCTAssertEqual(try write(two), own)
        assertFails(.invalidArgument, try two.setThreads(3))
        pool = nil
        XCTAssertEqual(try write(two), own)
        XCTAssertThrowsError(try Pool(PoolOptions(threads: 2, cpus: [900])))
        XCTAssertGreaterThan(try Pool().threads, 0)
    }

    func testAPoolOfTheCallersThreads() throws {
        let model = try Model(path: path)
        let own = try write(Context(model, small))
        let calls = Counter()
        var pool: Pool? = try Pool(threads: 2) { count, task in
            calls.add()
            DispatchQueue.concurrentPerform(iterations: count) { task($0) }
        }
        XCTAssertEqual(pool?.threads, 2)
        let one = try Context(model, ContextOptions(length: 32, pool: pool))
        // The context keeps the function.
        pool = nil
        XCTAssertEqual(try write(one), own)
        XCTAssertGreaterThan(calls.count, 0)
        // In the thread that computes, one after the other.
        let alone = try Pool(threads: 2) { count, task in (0..<count).forEach(task) }
        XCTAssertEqual(try write(Context(model, ContextOptions(length: 32, pool: alone))), own)
        assertFails(.invalidArgument, try Pool(threads: 0) { _, _ in })
    }

    func testAModelIsUsedByManyThreads() throws {
        let model = try Model(path: path)
        let own = try write(Context(model, small))
        let same = Counter()
        DispatchQueue.concurrentPerform(iterations: 6) { _ in
            if let tokens = try? self.write(Context(model, small)), tokens == own { same.add() }
        }
        XCTAssertEqual(same.count, 6)
    }

    /// While a call computes, another thread reads, and its calls that compute are busy.
    func testReadingBesideACall() throws {
        let context = try Context(Model(path: path), small)
        let computes = DispatchSemaphore(value: 0), goesOn = DispatchSemaphore(value: 0)
        let first = Counter()
        var params = few()
        params.logits = { _, _ in
            if first.add() > 1 { return }
            computes.signal()
            goesOn.wait()
        }
        let request = params
        let done = expectation(description: "the generation ends")
        DispatchQueue.global().async {
            do {
                try context.generate([Prompt([5, 6, 7])], request)
                done.fulfill()
            } catch {
                XCTFail("\(error)")
            }
        }
        computes.wait()
        XCTAssertEqual(try context.tokens().prefix(3), [5, 6, 7])
        XCTAssertEqual(try context.order().count, 32)
        XCTAssertEqual(try context.stopReason(), StopReason.none)
        XCTAssertNoThrow(try context.text())
        XCTAssertNoThrow(try context.profile())
        assertFails(.busy, try context.save())
        assertFails(.busy, try context.step())
        assertFails(.busy, try context.begin([Prompt()]))
        assertFails(.busy, try context.addSequence(Prompt()))
        assertFails(.busy, try context.score([1, 2]))
        assertFails(.busy, try context.threads())
        goesOn.signal()
        wait(for: [done], timeout: 60)
        XCTAssertNil(try context.step())
        let profile = try context.profile()
        XCTAssertGreaterThan(min(profile.blocks, profile.attention, profile.vocabulary, profile.sampling), 0)
        XCTAssertGreaterThanOrEqual(profile.rest, 0)
    }
}
