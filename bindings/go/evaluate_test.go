package esolm

import (
	"context"
	"errors"
	"math"
	"reflect"
	"regexp"
	"testing"
)

func TestSampling(t *testing.T) {
	model := openModel(t)
	c := newSession(t, model, small)
	text := func(params Params) []uint32 {
		t.Helper()
		if err := c.Generate(context.Background(), []Prompt{{}}, params); err != nil {
			t.Fatal(err)
		}
		tokens, err := c.Tokens(0)
		if err != nil {
			t.Fatal(err)
		}
		return tokens
	}
	greedy, tight, sigma := few(), few(), few()
	greedy.Temperature, tight.MinP, sigma.TopNSigma = 0, 1, 1e-6
	greedy.IgnoreEOS, tight.IgnoreEOS, sigma.IgnoreEOS = true, true, true
	best := text(greedy)
	if !reflect.DeepEqual(best, text(tight)) || !reflect.DeepEqual(best, text(sigma)) {
		t.Error("tight filters do not leave the most likely tokens")
	}
	typical := few()
	typical.TypicalP = 0.2
	if reflect.DeepEqual(text(few()), text(typical)) {
		t.Error("TypicalP changes nothing")
	}
	greedy.Alpha0 = 0
	for _, rule := range []Constraints{{PresencePenalty: 1e6}, {FrequencyPenalty: 1e6}} {
		greedy.Constraints = []Constraints{rule}
		tokens := text(greedy)
		different := map[uint32]bool{}
		for _, token := range tokens {
			different[token] = true
		}
		if len(different) != len(tokens) {
			t.Error("a token is repeated:", rule)
		}
	}
	greedy.Constraints = []Constraints{{Dry: Dry{Multiplier: 1e6, AllowedLength: 1, Breakers: []uint32{7}}}}
	pairs, tokens := map[[2]uint32]bool{}, text(greedy)
	for i := 1; i < len(tokens); i++ {
		pair := [2]uint32{tokens[i-1], tokens[i]}
		if pairs[pair] && pair[0] != 7 && pair[1] != 7 {
			t.Error("a pair is repeated:", tokens)
		}
		pairs[pair] = true
	}
	greedy.Constraints[0].Dry.Base = 0.5
	_, err := c.Begin(context.Background(), []Prompt{{}}, greedy)
	has(t, StatusInvalidArgument, err)
}

func TestGrammars(t *testing.T) {
	model := openModel(t)
	c := newSession(t, model, small)
	params := few()
	params.Alpha0 = 0
	params.Constraints = []Constraints{{Regex: "[ab]{3}c"}}
	err := c.Generate(context.Background(), []Prompt{{}}, params)
	if errors.Is(err, &Error{Status: StatusUnsupported}) {
		t.Log("grammars: not in this build")
	} else if text, _ := c.Text(0); err != nil || !regexp.MustCompile("^[ab]{3}c$").MatchString(text) {
		t.Error(text, err)
	}
	params.Constraints[0].JSONSchema = "{}"
	_, err = c.Begin(context.Background(), []Prompt{{}}, params)
	has(t, StatusInvalidArgument, err)
}

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
		probabilities, err := c.Probabilities(0, []uint32{position})
		if err != nil {
			t.Fatal(err)
		}
		logits, err := c.Logits(0, order[i:])
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
	_, err = c.Logits(0, order[:1])
	has(t, StatusInvalidArgument, err)
	if none, err := c.Logits(0, nil); none != nil || err != nil {
		t.Error(none, err)
	}
}
