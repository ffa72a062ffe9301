package esolm

import (
	"context"
	"reflect"
	"testing"
)

// The end-of-text token ends a text, and the work on it, where the model writes it: in the sequential phase of an Eso-LM, and
// by an autoregressive model.
func TestEndOfText(t *testing.T) {
	for _, file := range []string{path, "../../fuzz/seeds/gguf/ar"} {
		model, err := Open(file, ModelOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer model.Close()
		info, err := model.Info()
		if err != nil || info.EOSToken == nil {
			t.Fatal(info, err)
		}
		eos := *info.EOSToken
		c := newSession(t, model, SessionOptions{Length: 16, Threads: 1})
		run := func(params Params) (tokens []uint32, reason StopReason, steps int) {
			generation, err := c.Begin(context.Background(), []Prompt{{Tokens: []uint32{5, 6}}}, params)
			if err != nil {
				t.Fatal(err)
			}
			for generation.Next(context.Background()) {
				steps++
			}
			tokens, errTokens := c.Tokens(0)
			reason, errReason := c.StopReason(0)
			if generation.Err() != nil || errTokens != nil || errReason != nil {
				t.Fatal(generation.Err(), errTokens, errReason)
			}
			return tokens, reason, steps
		}
		params := DefaultParams()
		params.Seed, params.Alpha0, params.IgnoreEOS = 7, 0, true
		// At one position nothing but that token is allowed.
		params.Constraints = []Constraints{{Allowed: map[uint32][]uint32{9: {eos}}}}
		whole, reason, steps := run(params)
		if len(whole) != 16 || whole[9] != eos || reason != StopLength || steps != 14 {
			t.Fatal(whole, reason, steps)
		}
		end := 2
		for whole[end] != eos {
			end++
		}
		// The same tokens up to that one, and no step behind it.
		params.IgnoreEOS = false
		tokens, reason, steps := run(params)
		if !reflect.DeepEqual(tokens, whole[:end+1]) || reason != StopEndOfText || steps != end-1 {
			t.Error(file, tokens, reason, steps)
		}
		// The text does not show it.
		text, err := c.Text(0)
		if shown, other := model.Detokenize(whole[:end]); err != nil || other != nil || text != shown {
			t.Errorf("%q %q %v %v", text, shown, err, other)
		}
	}
}
