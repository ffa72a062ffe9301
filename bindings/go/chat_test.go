package esolm

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestConversations(t *testing.T) {
	m := openModel(t)
	messages := []Message{{"user", "Hi"}, {"assistant", "Yes"}, {"user", "So?"}}
	if _, err := m.ChatText(messages, ChatOptions{}); err == nil || !strings.Contains(err.Error(), "chat template") {
		t.Error(err)
	}
	chatml := ChatOptions{Template: "chatml"}
	text, err := m.ChatText(messages[:1], chatml)
	if err != nil && strings.Contains(err.Error(), "feature 'chat'") {
		t.Skip("chat templates: not in this build")
	}
	if text != "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n" || err != nil {
		t.Error(text, err)
	}
	if text, err := m.ChatText(messages[:1], ChatOptions{Template: "chatml", NoGenerationPrompt: true}); err != nil ||
		text != "<|im_start|>user\nHi<|im_end|>\n" {
		t.Error(text, err)
	}
	if end, err := m.ChatAnswerEnd(chatml); end != "<|im_end|>" || err != nil {
		t.Error(end, err)
	}
	tokens, err := m.ChatTokens(messages, chatml)
	behind, behindErr := m.ChatTokens(messages, ChatOptions{Template: "chatml", Behind: 2})
	if err != nil || behindErr != nil || len(behind) >= len(tokens) ||
		!reflect.DeepEqual(behind[len(behind)-4:], tokens[len(tokens)-4:]) {
		t.Error(tokens, err, behind, behindErr)
	}
	_, err = m.ChatTokens(messages, ChatOptions{Template: "chatml", Behind: 4})
	has(t, StatusInvalidArgument, err)
	_, err = m.ChatText([]Message{{"user", "a\x00"}}, chatml)
	has(t, StatusInvalidArgument, err)
	_, err = m.ChatText(messages, ChatOptions{Template: "{% if %}"})
	has(t, StatusInvalidArgument, err)
	given := ChatOptions{Template: "{{ think }} {{ tools|tojson }}"}
	given.TemplateKwargs = map[string]any{"think": false, "tools": []json.RawMessage{json.RawMessage(`{"b": "ü<", "a": 1}`)}}
	if text, err := m.ChatText(messages, given); text != `False [{"b": "ü<", "a": 1}]` || err != nil {
		t.Error(text, err)
	}
	given.TemplateKwargs = map[string]any{"messages": 1}
	_, err = m.ChatText(messages, given)
	has(t, StatusInvalidArgument, err)
	given.TemplateKwargs = map[string]any{"a": func() {}}
	_, err = m.ChatText(messages, given)
	has(t, StatusInvalidArgument, err)
}

func TestAppendSequence(t *testing.T) {
	m := openModel(t)
	how := few()
	how.MaxTokens, how.Alpha0, how.IgnoreEOS = 5, 0, true
	c := newSession(t, m, SessionOptions{Length: 32, Threads: 1})
	number, err := c.AddSequence(context.Background(), Prompt{Tokens: []uint32{5, 6, 7}}, how)
	if err != nil {
		t.Fatal(err)
	}
	finish := func() []uint32 {
		for {
			step, err := c.Step(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if step == nil {
				break
			}
		}
		tokens, err := c.Tokens(number)
		if err != nil {
			t.Fatal(err)
		}
		return tokens
	}
	before := finish()
	// Another has its place for a while.
	state, err := c.SaveSequence(number)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveSequence(number); err != nil {
		t.Fatal(err)
	}
	if number, err = c.RestoreSequence(state); err != nil {
		t.Fatal(err)
	}
	if tokens, err := c.Tokens(number); err != nil || !reflect.DeepEqual(tokens, before) {
		t.Error(tokens, err, before)
	}
	_, err = c.RestoreSequence(state)
	has(t, StatusInvalidArgument, err)
	_, err = c.RestoreSequence(nil)
	has(t, StatusBadFile, err)
	for _, keep := range []int{-1, 3} {
		if err := c.AppendSequence(context.Background(), number, keep, Prompt{Tokens: []uint32{8, 9}}, how); err != nil {
			t.Fatal(err)
		}
		stays := len(before)
		if keep >= 0 {
			stays = keep
		}
		after := finish()
		if len(after) != stays+7 || !reflect.DeepEqual(after[:stays], before[:stays]) || after[stays] != 8 {
			t.Error(keep, before, after)
		}
		before = after
	}
}
