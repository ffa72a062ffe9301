import Esolm
import XCTest

final class ChatTests: XCTestCase {
    private let messages = [
        Message(role: "user", content: "Hi"), Message(role: "assistant", content: "Yes"),
        Message(role: "user", content: "So?"),
    ]

    func testConversations() throws {
        let model = try Model(path: path)
        assertFails(.unsupported, try model.chatText(messages))
        var options = ChatOptions(template: "chatml")
        let text: String
        do {
            text = try model.chatText([messages[0]], options)
        } catch let error as EsolmError where error.status == .unsupported {
            throw XCTSkip("chat templates: not in this build")
        }
        XCTAssertEqual(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
        XCTAssertEqual(try model.chatAnswerEnd(options), "<|im_end|>")
        let tokens = try model.chatTokens(messages, options)
        options.behind = 2
        let behind = try model.chatTokens(messages, options)
        XCTAssertLessThan(behind.count, tokens.count)
        XCTAssertEqual(behind.suffix(4), tokens.suffix(4))
        options.behind = 4
        assertFails(.invalidArgument, try model.chatTokens(messages, options))
        options = ChatOptions(template: "chatml")
        options.addGenerationPrompt = false
        XCTAssertEqual(try model.chatText([messages[0]], options), "<|im_start|>user\nHi<|im_end|>\n")
        options = ChatOptions(template: "{{ think }} {{ tools|tojson }}")
        options.templateKwargs = #"{"think": false, "tools": [{"b": "ü<", "a": 1}]}"#
        XCTAssertEqual(try model.chatText(messages, options), #"False [{"b": "ü<", "a": 1}]"#)
        options.templateKwargs = #"{"messages": []}"#
        assertFails(.invalidArgument, try model.chatText(messages, options))
    }
}
