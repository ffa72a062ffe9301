package esolm

import (
	"context"
	"errors"
	"math"
	"reflect"
	"testing"
)

func TestLookahead(t *testing.T) {
	c := newSession(t, openModel(t), small)
	var texts [2][]uint32
	var steps, proposed, accepted [2]int
	for i, lookahead := range []uint32{0, 4} {
		params := few()
		params.Alpha0, params.Temperature, params.IgnoreEOS, params.Lookahead = 0, 0, true, lookahead
		generation, err := c.Begin(context.Background(), []Prompt{{}}, params)
		if err != nil {
			t.Fatal(err)
		}
		for generation.Next(context.Background()) {
			step := generation.Step()
			steps[i]++
			proposed[i] += step.Proposed
			accepted[i] += step.Accepted
		}
		if err := generation.Err(); err != nil {
			t.Fatal(err)
		}
		if texts[i], err = c.Tokens(0); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(texts[0], texts[1]) {
		t.Error(texts)
	}
	if steps[1] >= steps[0] || proposed[0] != 0 || accepted[1] == 0 || accepted[1] > proposed[1] {
		t.Error(steps, proposed, accepted)
	}
	params := few()
	params.Lookahead = 17
	_, err := c.Begin(context.Background(), []Prompt{{}}, params)
	has(t, StatusInvalidArgument, err)
}

func TestEvaluate(t *testing.T) {
	model := openModel(t)
	c := newSession(t, model, small)
	params := few()
	params.Alpha0, params.TopLogProbs, params.IgnoreEOS = 0, 4, true
	generation, err := c.Begin(context.Background(), []Prompt{{}}, params)
	if err != nil {
		t.Fatal(err)
	}
	order, err := c.Order(0)
	if err != nil {
		t.Fatal(err)
	}
	for i, position := range order {
		probabilities, err := c.Probabilities(context.Background(), 0, []uint32{position})
		if err != nil {
			t.Fatal(err)
		}
		logits, err := c.Logits(context.Background(), 0, order[i:])
		if err != nil || len(logits) != len(order)-i {
			t.Fatal(len(logits), err)
		}
		if !generation.Next(context.Background()) {
			t.Fatal(generation.Err())
		}
		step := generation.Step()
		top := step.TopLogProbs[0]
		if len(step.Updates) != 1 || len(top) != 4 {
			t.Fatal(step)
		}
		// Two logits are as far apart as their log-probabilities.
		apart := logits[0][top[0].Token] - logits[0][top[3].Token]
		if math.Abs(float64(apart-(top[0].LogProb-top[3].LogProb))) > 1e-3 {
			t.Error(apart, top)
		}
		if probabilities[0][step.Updates[0].Token] <= 0 {
			t.Error("a token without a probability was written")
		}
	}
	_, err = c.Logits(context.Background(), 0, order[:1])
	has(t, StatusInvalidArgument, err)
	if none, err := c.Logits(context.Background(), 0, nil); none != nil || err != nil {
		t.Error(none, err)
	}
	// A context that has ended evaluates nothing.
	if _, err := c.Begin(context.Background(), []Prompt{{}}, params); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, evaluate := range []func(context.Context, uint32, []uint32) ([][]float32, error){c.Logits, c.Probabilities} {
		if rows, err := evaluate(ctx, 0, order[:1]); rows != nil || !errors.Is(err, context.Canceled) {
			t.Error(len(rows), err)
		}
		if rows, err := evaluate(context.Background(), 0, order[:1]); len(rows) != 1 || err != nil {
			t.Error("a cancel outlived its call:", len(rows), err)
		}
	}
}
