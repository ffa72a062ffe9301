package esolm

import (
	"context"
	"reflect"
	"testing"
)

// fills returns how many places each step of a generation fills, which are all of a text of 16 tokens but the first two, and
// the tokens.
func fills(t *testing.T, model *Model, params Params) (counts []int, tokens []uint32) {
	t.Helper()
	info, err := model.Info()
	if err != nil {
		t.Fatal(err)
	}
	c := newSession(t, model, SessionOptions{Length: 16, Threads: 1})
	params.Seed, params.IgnoreEOS = 7, true
	generation, err := c.Begin(context.Background(), []Prompt{{Tokens: []uint32{5, 6}}}, params)
	if err != nil {
		t.Fatal(err)
	}
	filled := 0
	for generation.Next(context.Background()) {
		counts = append(counts, len(generation.Step().Updates))
		filled += len(generation.Step().Updates)
	}
	tokens, errTokens := c.Tokens(0)
	reason, errReason := c.StopReason(0)
	cached, errCached := c.CachedTokens(0)
	if generation.Err() != nil || errTokens != nil || errReason != nil || errCached != nil {
		t.Fatal(generation.Err(), errTokens, errReason, errCached)
	}
	if filled != 14 || len(tokens) != 16 || tokens[0] != 5 || tokens[1] != 6 || reason != StopLength || cached > 16 {
		t.Error(filled, tokens, reason, cached)
	}
	for _, token := range tokens {
		if int(token) >= info.VocabSize || token == info.MaskToken {
			t.Error(tokens)
		}
	}
	return counts, tokens
}

func openSeed(t *testing.T, name string) *Model {
	t.Helper()
	model, err := Open("../../fuzz/seeds/gguf/"+name, ModelOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { model.Close() })
	return model
}

var oneByOne = []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}

// WeDLM fills the places of a window that it is certain of.
func TestWindows(t *testing.T) {
	model := openSeed(t, "wedlm")
	own, tokens := fills(t, model, DefaultParams())
	if counts, again := fills(t, model, DefaultParams()); !reflect.DeepEqual(counts, own) || !reflect.DeepEqual(again, tokens) {
		t.Error(counts, own, again, tokens)
	}
	params := DefaultParams()
	params.Confidence, params.Window, params.Threshold = ConfidenceEntropy, 4, 100 // of each
	if counts, _ := fills(t, model, params); !reflect.DeepEqual(counts, []int{4, 4, 4, 2}) {
		t.Error(counts)
	}
	params.Threshold = 0 // of none
	if counts, _ := fills(t, model, params); !reflect.DeepEqual(counts, oneByOne) {
		t.Error(counts)
	}
	params.Threshold, params.Window = 100, WindowAuto
	if counts, _ := fills(t, model, params); len(counts) >= 14 {
		t.Error(counts)
	}
	// A window without a confidence is WeDLM's; a threshold without one is none's.
	params = DefaultParams()
	params.Window = 2
	_, narrow := fills(t, model, params)
	params.Confidence, params.Threshold, params.Penalty, params.InOrder = ConfidenceEntropy, 0.4, 0.02, true
	if _, spelled := fills(t, model, params); !reflect.DeepEqual(narrow, spelled) {
		t.Error(narrow, spelled)
	}
	params.Confidence = ConfidenceNone
	session := newSession(t, model, SessionOptions{Length: 16})
	rows, err := session.MeasurePassOverhead()
	if err != nil || rows < 0.05 || rows > 256 {
		t.Error(rows, err)
	}
	if err := session.SetPassOverhead(rows); err != nil {
		t.Error(err)
	}
	has(t, StatusInvalidArgument, session.SetPassOverhead(-1))
	_, err = session.Begin(context.Background(), []Prompt{{Tokens: []uint32{5}}}, params)
	has(t, StatusInvalidArgument, err)
}

// BD3-LM fills block after block, of four places.
func TestBlocks(t *testing.T) {
	model := openSeed(t, "bd3lm")
	own, tokens := fills(t, model, DefaultParams())
	if counts, again := fills(t, model, DefaultParams()); !reflect.DeepEqual(counts, own) || !reflect.DeepEqual(again, tokens) {
		t.Error(counts, own, again, tokens)
	}
	if !reflect.DeepEqual(own, oneByOne) {
		t.Error(own)
	}
	params := DefaultParams()
	params.Steps = 2 // of each block
	if counts, _ := fills(t, model, params); len(counts) > 8 {
		t.Error(counts)
	}
	params = DefaultParams()
	params.Schedule = []uint32{4}
	if counts, _ := fills(t, model, params); !reflect.DeepEqual(counts, []int{2, 4, 4, 4}) {
		t.Error(counts)
	}
}
