package esolm

/*
#include <esolm.h>
*/
import "C"

import (
	"encoding/json"
	"strings"
	"unsafe"
)

// Message is one message of a conversation.
type Message struct {
	Role    string // "system", "user", "assistant", or another that the template knows
	Content string
}

// ChatOptions say how the messages of a conversation become one text; the zero value is the default.
type ChatOptions struct {
	// The template: "" is that of the model's file, "chatml" the format of Qwen and others, anything else a template in Jinja.
	Template string
	// How many of the messages a sequence has already, the last of them being the answer that the model wrote there:
	// ChatTokens makes tokens of what follows. 0 is of all.
	Behind int
	// ChatText ends with the last message, instead of where the model's next answer begins.
	NoGenerationPrompt bool
	// More that the template is to know, such as "enable_thinking": false for Qwen3's, or "tools": what encoding/json makes of it.
	// (A json.RawMessage keeps an object's order.)
	TemplateKwargs map[string]any
}

func (options ChatOptions) c(memory *cMemory) (*C.esolm_chat_params, error) {
	template, err := memory.text("the template", options.Template)
	if err != nil {
		return nil, err
	}
	var kwargs *C.char
	if options.TemplateKwargs != nil {
		object, err := json.Marshal(options.TemplateKwargs)
		if err != nil {
			return nil, &Error{StatusInvalidArgument, "TemplateKwargs: " + err.Error()}
		}
		if kwargs, err = memory.text("TemplateKwargs", string(object)); err != nil {
			return nil, err
		}
	}
	params := (*C.esolm_chat_params)(memory.take(1, C.sizeof_esolm_chat_params))
	C.esolm_chat_params_init(params, C.sizeof_esolm_chat_params)
	params.chat_template = template
	params.behind = C.size_t(options.Behind)
	params.add_generation_prompt = boolean(!options.NoGenerationPrompt)
	params.chat_template_kwargs = kwargs
	return params, nil
}

// chat makes a call with messages and options.
func chat[T any](messages []Message, options ChatOptions,
	call func(*C.esolm_message, C.size_t, *C.esolm_chat_params) (T, error)) (T, error) {
	var memory cMemory
	defer memory.free()
	params, err := options.c(&memory)
	own := (*C.esolm_message)(memory.take(len(messages), C.sizeof_esolm_message))
	for i, message := range messages {
		if strings.IndexByte(message.Role+message.Content, 0) >= 0 {
			err = &Error{StatusInvalidArgument, "a message has a NUL"}
		}
		role, content := C.CString(message.Role), C.CString(message.Content)
		memory = append(memory, unsafe.Pointer(role), unsafe.Pointer(content))
		unsafe.Slice(own, len(messages))[i] = C.esolm_message{role: role, content: content}
	}
	if err != nil {
		var none T
		return none, err
	}
	return call(own, C.size_t(len(messages)), params)
}

// ChatText returns the text of a conversation.
func (m *Model) ChatText(messages []Message, options ChatOptions) (string, error) {
	return chat(messages, options, func(own *C.esolm_message, count C.size_t, params *C.esolm_chat_params) (string, error) {
		return m.text(1024, func(model *C.esolm_model, text *C.char, capacity C.size_t, n *C.size_t) C.esolm_status {
			return C.esolm_chat_apply(model, own, count, params, text, capacity, n)
		})
	})
}

// ChatTokens returns the tokens of a conversation up to the model's next answer, or of what follows an answer
// (ChatOptions.Behind), for AppendSequence. If those begin with the token that ended the answer, which the sequence has, leave
// it out.
func (m *Model) ChatTokens(messages []Message, options ChatOptions) ([]uint32, error) {
	return chat(messages, options, func(own *C.esolm_message, count C.size_t, params *C.esolm_chat_params) ([]uint32, error) {
		return filled(func(tokens []uint32, n *C.size_t) error {
			return m.with(func(model *C.esolm_model) C.esolm_status {
				return C.esolm_chat_tokenize(model, own, count, params, first[C.uint32_t](tokens), C.size_t(len(tokens)), n)
			})
		}, 512)
	})
}

// ChatAnswerEnd returns what the template writes behind an answer, such as "<|im_end|>": a stop string, and where it is the name
// of a special token, that is a stop token.
func (m *Model) ChatAnswerEnd(options ChatOptions) (string, error) {
	return chat(nil, options, func(_ *C.esolm_message, _ C.size_t, params *C.esolm_chat_params) (string, error) {
		return m.text(32, func(model *C.esolm_model, text *C.char, capacity C.size_t, n *C.size_t) C.esolm_status {
			return C.esolm_chat_answer_end(model, params, text, capacity, n)
		})
	})
}
