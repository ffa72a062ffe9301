package esolm

import (
	"context"
	"reflect"
	"testing"
)

func finish(t *testing.T, generation *Generation, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for generation.Next(context.Background()) {
	}
	if err := generation.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestStates(t *testing.T) {
	model := openModel(t)
	one, two := newSession(t, model, small), newSession(t, model, small)
	half, whole := few(), few()
	half.Length, whole.Seed = 12, 8
	begun := written(t, one, half)
	state, err := one.Save()
	if err != nil || len(state) < 12*8 {
		t.Fatal(len(state), err)
	}
	further := []Prompt{{Tokens: []uint32{9}, Positions: []uint32{20}}}
	generation, err := one.Extend(context.Background(), further, whole)
	finish(t, generation, err)
	expected, err := one.Tokens(0)
	if err != nil || len(expected) != 32 || expected[20] != 9 || !reflect.DeepEqual(expected[:12], begun) {
		t.Error(expected, begun, err)
	}

	// Another context continues from the saved state with the same tokens.
	if err := two.Restore(state); err != nil {
		t.Fatal(err)
	}
	if tokens, err := two.Tokens(0); err != nil || !reflect.DeepEqual(tokens, begun) {
		t.Error(tokens, err)
	}
	generation, err = two.Extend(context.Background(), further, whole)
	finish(t, generation, err)
	if tokens, err := two.Tokens(0); err != nil || !reflect.DeepEqual(tokens, expected) {
		t.Error(tokens, expected, err)
	}

	// A damaged state is refused, and changes nothing.
	state[len(state)/2] ^= 64
	has(t, StatusBadFile, two.Restore(state))
	has(t, StatusBadFile, two.Restore(state[:len(state)-1]))
	has(t, StatusBadFile, two.Restore(nil))
	_, err = two.Extend(context.Background(), make([]Prompt, 1), half) // shorter
	has(t, StatusInvalidArgument, err)
	if tokens, err := two.Tokens(0); err != nil || !reflect.DeepEqual(tokens, expected) {
		t.Error(tokens, expected, err)
	}
	two.Close()
	if _, err := two.Save(); err != ErrClosed {
		t.Error(err)
	}
	if err := two.Restore(state); err != ErrClosed {
		t.Error(err)
	}
}

func TestOrderAndAdaptiveSteps(t *testing.T) {
	c := newSession(t, openModel(t), small)
	params := few()
	params.Alpha0, params.Order, params.OrderSize = 1, OrderStrided, 8
	if _, err := c.Begin(context.Background(), make([]Prompt, 1), params); err != nil {
		t.Fatal(err)
	}
	order, err := c.Order(0)
	if err != nil || len(order) != 32 {
		t.Fatal(order, err)
	}
	for i, position := range order {
		if int(position) != i/4+i%4*8 {
			t.Error(i, position)
		}
	}
	_, err = c.Order(1)
	has(t, StatusInvalidArgument, err)

	// A threshold that no token meets, and one that every token meets.
	for _, test := range []struct {
		confidence Confidence
		threshold  float32
		penalty    float32
		each       int
	}{
		{ConfidenceProbability, 2, 0, 1}, {ConfidenceProbability, 0, 0, 8}, {ConfidenceMargin, 2, 0, 1},
		{ConfidenceMargin, 0, 0, 8}, {ConfidenceEntropy, 0, 0, 1}, {ConfidenceEntropy, 100, 0, 8},
		{ConfidenceProbability, 0, 2, 1}, // the first alone meets it
	} {
		params := few()
		params.Alpha0, params.Window = 1, 8
		params.Confidence, params.Threshold, params.Penalty = test.confidence, test.threshold, test.penalty
		generation, err := c.Begin(context.Background(), make([]Prompt, 1), params)
		if err != nil {
			t.Fatal(err)
		}
		if !generation.Next(context.Background()) || len(generation.Step().Updates) != test.each {
			t.Error(test, generation.Step(), generation.Err())
		}
	}
	sliding := few()
	sliding.Alpha0, sliding.Window, sliding.Confidence, sliding.InOrder = 1, WindowAuto, ConfidenceEntropy, true
	generation, err := c.Begin(context.Background(), make([]Prompt, 1), sliding)
	if err != nil || !generation.Next(context.Background()) {
		t.Error(err)
	}
	for _, wrong := range []func(*Params){
		func(p *Params) { p.Confidence = 4 },
		func(p *Params) { p.Window = 0 },
		func(p *Params) { p.Window = -1 },
		func(p *Params) { p.Window = WindowAuto }, // does not slide
		func(p *Params) { p.Alpha0 = 0.5 },
		func(p *Params) { p.Schedule = []uint32{2} },
	} {
		params := few()
		params.Alpha0, params.Window, params.Confidence = 1, 8, ConfidenceMargin
		wrong(&params)
		_, err := c.Begin(context.Background(), make([]Prompt, 1), params)
		has(t, StatusInvalidArgument, err)
	}
}

func TestProfileAndMemory(t *testing.T) {
	model := openModel(t)
	c := newSession(t, model, small)
	if profile, err := c.Profile(); err != nil || profile != (Profile{}) {
		t.Error(profile, err)
	}
	written(t, c, few())
	profile, err := c.Profile()
	if err != nil || profile.Blocks <= 0 || profile.Attention <= 0 || profile.Vocabulary <= 0 || profile.Sampling <= 0 {
		t.Error(profile, err)
	}
	_, err = newSession(t, model, SessionOptions{Length: 32, Threads: 1, GGML: true}).Profile()
	has(t, StatusUnsupported, err)

	use, err := model.MemoryUse(small)
	estimate, _ := EstimateMemory(path, ModelOptions{Device: "cpu"}, small)
	if err != nil || use != estimate || use.KVCache == 0 {
		t.Error(use, estimate, err)
	}
	few := small
	few.BatchRows = 16 // fewer rows at once need less memory
	if less, err := model.MemoryUse(few); err != nil || less.Compute >= use.Compute {
		t.Error(less, use, err)
	}
	_, err = model.MemoryUse(SessionOptions{Length: 1 << 20})
	has(t, StatusInvalidArgument, err)
	info, err := model.Info()
	if err != nil || info.LoadTime <= 0 || uint64(info.TensorBytes) != use.Weights {
		t.Error(info, err)
	}
}
