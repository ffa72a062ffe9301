package esolm

import (
	"context"
	"errors"
	"math"
	"reflect"
	"testing"
)

// only returns a LogitsCallback that allows one token at even and one at odd positions.
func only(even, odd uint32) LogitsCallback {
	return func(row LogitsRow, logits []float32) error {
		for token := range logits {
			if want := [2]uint32{even, odd}[row.Position%2]; uint32(token) != want {
				logits[token] = float32(math.Inf(-1))
			}
		}
		return nil
	}
}

func textOf(t *testing.T, c *Session, sequence uint32) string {
	t.Helper()
	text, err := c.Text(sequence)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSequencesJoinAndLeave(t *testing.T) {
	model := openModel(t)
	words, err := model.Tokenize("Once upon a time")
	if err != nil {
		t.Fatal(err)
	}
	prompt := Prompt{Tokens: words}
	single := newSession(t, model, small)
	requests := make([]Params, 6)
	expected := make([]string, len(requests))
	for i := range requests {
		requests[i] = few()
		requests[i].Seed, requests[i].Steps, requests[i].StepText = uint64(i), 3+i, true
		if i == 2 || i == 3 {
			requests[i].Logits = only(uint32(30*i), 31)
		}
		if i == 4 {
			requests[i].MaxTokens = 5
			requests[i].TopLogProbs = 3
		}
		if err := single.Generate(context.Background(), []Prompt{prompt}, requests[i]); err != nil {
			t.Fatal(err)
		}
		expected[i] = textOf(t, single, 0)
	}

	c := newSession(t, model, small)
	type client struct {
		request int
		text    string
	}
	clients := map[uint32]*client{}
	next, finished, top := 0, 0, 0
	for steps := 0; finished < len(requests) && steps < 500; steps++ {
		if len(clients) < 2 && next < len(requests) {
			number, err := c.AddSequence(context.Background(), prompt, requests[next])
			if err != nil || clients[number] != nil {
				t.Fatal(number, err)
			}
			if n, err := c.CachedTokens(number); err != nil || (n > 0) != (next > 0) {
				t.Error(next, n, err)
			}
			clients[number] = &client{next, textOf(t, c, number)}
			next++
		} else if len(clients) == 2 {
			_, err := c.AddSequence(context.Background(), prompt, few())
			has(t, StatusInvalidArgument, err)
		}
		step, err := c.Step(context.Background())
		if err != nil || step == nil {
			t.Fatal(step, err)
		}
		for i := range step.TopLogProbs {
			want := 3
			if clients[step.Updates[i].Sequence].request != 4 {
				want = 0
			}
			if len(step.TopLogProbs[i]) != want {
				t.Error(step.Updates[i], step.TopLogProbs[i])
			}
			top += want / 3
		}
		for number, client := range clients {
			client.text += step.Texts[number].Text
			if step.Texts[number].StopReason != StopNone {
				if client.text != expected[client.request] || textOf(t, c, number) != client.text {
					t.Errorf("%d: %q instead of %q", client.request, client.text, expected[client.request])
				}
				if err := c.RemoveSequence(number); err != nil {
					t.Error(err)
				}
				delete(clients, number)
				finished++
			}
		}
	}
	if finished != len(requests) || top != 5 {
		t.Error(finished, top)
	}
	if step, err := c.Step(context.Background()); step != nil || err != nil {
		t.Error(step, err)
	}
	has(t, StatusInvalidArgument, c.RemoveSequence(0))
	_, err = c.CachedTokens(1)
	has(t, StatusInvalidArgument, err)
	_, err = c.AddSequence(context.Background(), Prompt{Tokens: []uint32{1, 2}, Positions: []uint32{3, 3}}, few())
	has(t, StatusInvalidArgument, err)
	_, err = c.AddSequence(context.Background(), Prompt{Tokens: []uint32{1}, Positions: []uint32{1, 2}}, few())
	has(t, StatusInvalidArgument, err)
	wrong := few()
	wrong.Steps = -1
	_, err = c.AddSequence(context.Background(), prompt, wrong)
	has(t, StatusInvalidArgument, err)
}

func TestALongPromptJoinsInParts(t *testing.T) {
	model := openModel(t)
	options := small
	options.PromptRows = 4
	single, c := newSession(t, model, small), newSession(t, model, options)
	params := few()
	params.Alpha0 = 0
	long := Prompt{Tokens: []uint32{5, 6, 7, 8, 9, 10, 11, 12, 13, 14}}
	if err := single.Generate(context.Background(), []Prompt{long}, params); err != nil {
		t.Fatal(err)
	}
	step := func() []uint32 {
		step, err := c.Step(context.Background())
		if err != nil || step == nil {
			t.Fatal(step, err)
		}
		var written []uint32
		for _, update := range step.Updates {
			written = append(written, update.Sequence)
		}
		return written
	}
	first, err := c.AddSequence(context.Background(), Prompt{}, params)
	if err != nil {
		t.Fatal(err)
	}
	step()
	second, err := c.AddSequence(context.Background(), long, params)
	if err != nil {
		t.Fatal(err)
	}
	for _, cached := range []int{4, 8} {
		if written := step(); !reflect.DeepEqual(written, []uint32{first}) {
			t.Error(written)
		}
		if n, err := c.CachedTokens(second); n != cached || err != nil {
			t.Error(n, cached, err)
		}
	}
	if written := step(); !reflect.DeepEqual(written, []uint32{first, second}) {
		t.Error(written)
	}
	for reason := StopNone; reason == StopNone; reason, err = c.StopReason(second) {
		if _, stepErr := c.Step(context.Background()); stepErr != nil || err != nil {
			t.Fatal(stepErr, err)
		}
	}
	if textOf(t, c, second) != textOf(t, single, 0) {
		t.Error(textOf(t, c, second), textOf(t, single, 0))
	}
}

func TestASequenceFailsAlone(t *testing.T) {
	model := openModel(t)
	single, c := newSession(t, model, small), newSession(t, model, small)
	forced := few()
	forced.Logits = only(40, 41)
	if err := single.Generate(context.Background(), make([]Prompt, 1), forced); err != nil {
		t.Fatal(err)
	}
	good, err := c.AddSequence(context.Background(), Prompt{}, forced)
	if err != nil {
		t.Fatal(err)
	}
	mode := 0
	failing := few()
	failing.Logits = func(row LogitsRow, logits []float32) error {
		switch mode {
		case 0:
			for token := range logits {
				logits[token] = float32(math.Inf(-1))
			}
		case 1:
			return errEnough
		case 2:
			panic("draw")
		}
		return nil
	}
	bad, err := c.AddSequence(context.Background(), Prompt{}, failing)
	if err != nil {
		t.Fatal(err)
	}
	reasons := func() [2]StopReason {
		a, err := c.StopReason(good)
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.StopReason(bad)
		if err != nil {
			t.Fatal(err)
		}
		return [2]StopReason{a, b}
	}
	_, err = c.Step(context.Background())
	has(t, StatusInvalidArgument, err)
	if r := reasons(); r != [2]StopReason{StopNone, StopError} {
		t.Error(r)
	}
	mode = 1
	if _, err := c.Step(context.Background()); err != errEnough || reasons() != [2]StopReason{StopNone, StopCancelled} {
		t.Error(err, reasons())
	}
	mode = 2
	if value := panics(func() { c.Step(context.Background()) }); value != "draw" {
		t.Error(value)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Step(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := c.RemoveSequence(bad); err != nil {
		t.Error(err)
	}
	for {
		step, err := c.Step(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if step == nil {
			break
		}
	}
	expected, err := single.Tokens(0)
	if err != nil {
		t.Fatal(err)
	}
	if tokens, err := c.Tokens(good); err != nil || !reflect.DeepEqual(tokens, expected) {
		t.Error(tokens, expected, err)
	}
}

func TestASequenceGoesOn(t *testing.T) {
	model := openModel(t)
	single, c := newSession(t, model, small), newSession(t, model, small)
	begin, goOn := few(), few()
	begin.Length = 12
	goOn.Seed = 8
	more := Prompt{Tokens: []uint32{7}, Positions: []uint32{12}}
	if err := single.Generate(context.Background(), make([]Prompt, 1), begin); err != nil {
		t.Fatal(err)
	}
	extended, err := single.Extend(context.Background(), []Prompt{more}, goOn)
	if err != nil {
		t.Fatal(err)
	}
	for extended.Next(context.Background()) {
	}
	if extended.Err() != nil {
		t.Fatal(extended.Err())
	}
	finish := func() {
		for {
			if step, err := c.Step(context.Background()); err != nil {
				t.Fatal(err)
			} else if step == nil {
				return
			}
		}
	}
	number, err := c.AddSequence(context.Background(), Prompt{}, begin)
	if err != nil {
		t.Fatal(err)
	}
	finish()
	if _, err := c.AddSequence(context.Background(), Prompt{}, few()); err != nil {
		t.Fatal(err)
	}
	has(t, StatusInvalidArgument, c.ExtendSequence(context.Background(), 5, more, goOn))
	has(t, StatusInvalidArgument, c.AppendSequence(context.Background(), 5, -1, more, goOn))
	if err := c.ExtendSequence(context.Background(), number, more, goOn); err != nil {
		t.Fatal(err)
	}
	finish()
	if textOf(t, c, number) != textOf(t, single, 0) {
		t.Error(textOf(t, c, number), textOf(t, single, 0))
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	has(t, StatusInvalidArgument, c.ExtendSequence(context.Background(), number, more, goOn))
}
