import EsolmSystem

/// One message of a conversation.
public struct Message: Sendable, Equatable {
    /// "system", "user", "assistant", or another that the template knows.
    public var role: String
    public var content: String

    public init(role: String, content: String) {
        self.role = role
        self.content = content
    }
}

/// How the messages of a conversation become one text.
public struct ChatOptions: Sendable {
    /// nil: the template of the model's file. "chatml": the format of Qwen and others. Otherwise a template in Jinja.
    public var template: String?
    /// How many of the messages a sequence has already, the last of them being the answer that the model wrote there:
    /// `chatTokens` makes tokens of what follows. 0: of all.
    public var behind = 0
    /// Whether `chatText` goes on to where the model's next answer begins; so it does by default.
    public var addGenerationPrompt: Bool
    /// More that the template is to know, an object in JSON: variables by their names, such as `{"enable_thinking": false}` for
    /// Qwen3's, or `tools`. nil: nothing.
    public var templateKwargs: String?

    public init(template: String? = nil) {
        self.template = template
        addGenerationPrompt = ChatOptions.defaults().add_generation_prompt != 0
    }

    static func defaults() -> esolm_chat_params {
        var params = esolm_chat_params()
        _ = esolm_chat_params_init(&params, MemoryLayout<esolm_chat_params>.stride)
        return params
    }
}

extension Model {
    /// The text of a conversation.
    public func chatText(_ messages: [Message], _ options: ChatOptions = ChatOptions()) throws -> String {
        try withChat(messages, options) { own, count, params in
            try filledText(capacity: 1024) { text, n in
                esolm_chat_apply(self.handle, own, count, params, text.baseAddress, text.count, &n)
            }
        }
    }

    /// The tokens of a conversation up to the model's next answer, or of what follows an answer (`ChatOptions.behind`), for
    /// `Context.appendSequence`. If those begin with the token that ended the answer, which the sequence has, leave it out.
    public func chatTokens(_ messages: [Message], _ options: ChatOptions = ChatOptions()) throws -> [UInt32] {
        try withChat(messages, options) { own, count, params in
            try filled(0 as UInt32, capacity: 512) { tokens, n in
                esolm_chat_tokenize(self.handle, own, count, params, tokens.baseAddress, tokens.count, &n)
            }
        }
    }

    /// What the template writes behind an answer, such as "<|im_end|>": a stop string, and where it is the name of a special token,
    /// that is a stop token.
    public func chatAnswerEnd(_ options: ChatOptions = ChatOptions()) throws -> String {
        try withChat([], options) { _, _, params in
            try filledText(capacity: 32) { text, n in
                esolm_chat_answer_end(self.handle, params, text.baseAddress, text.count, &n)
            }
        }
    }

    private func withChat<R>(
        _ messages: [Message], _ options: ChatOptions,
        _ body: (UnsafePointer<esolm_message>?, Int, UnsafePointer<esolm_chat_params>) throws -> R
    ) throws -> R {
        try refuseNUL("the template", options.template)
        try refuseNUL("templateKwargs", options.templateKwargs)
        for message in messages { try refuseNUL("a message", message.role + message.content) }
        let memory = Scratch()
        func chars(_ text: String) -> UnsafePointer<CChar>? { memory.copy(Array(text.utf8CString)) }
        var params = ChatOptions.defaults()
        params.chat_template = options.template.flatMap(chars)
        params.behind = options.behind
        params.add_generation_prompt = options.addGenerationPrompt ? 1 : 0
        params.chat_template_kwargs = options.templateKwargs.flatMap(chars)
        let own = memory.copy(messages.map { esolm_message(role: chars($0.role), content: chars($0.content)) })
        return try withExtendedLifetime(memory) { try body(own, messages.count, &params) }
    }
}
