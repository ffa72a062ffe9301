package esolm

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-3 }

func sum(numbers []float64) (total float64) {
	for _, number := range numbers {
		total += number
	}
	return total
}

func TestScore(t *testing.T) {
	c := newSession(t, openModel(t), small)
	scores, err := c.Score(context.Background(), []uint32{5, 6, 7, 8})
	if err != nil || len(scores) != 4 || scores[0] >= 0 {
		t.Error(scores, err)
	}
	_, err = c.Score(context.Background(), nil)
	has(t, StatusInvalidArgument, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err = c.Score(ctx, []uint32{5}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err = c.Score(context.Background(), []uint32{5}); err != nil {
		t.Error("a cancel outlived its call:", err)
	}
}

func TestScoreInAnOrder(t *testing.T) {
	model := openModel(t)
	c := newSession(t, model, small)
	ctx := context.Background()
	tokens, err := model.Tokenize("Once upon a time there was a girl.")
	if err != nil {
		t.Fatal(err)
	}
	n := len(tokens)
	reversed := make([]uint32, n)
	for i := range reversed {
		reversed[i] = uint32(n - 1 - i)
	}
	forward, err := c.ScoreOrder(ctx, tokens, nil, 0)
	if err != nil || len(forward) != n {
		t.Fatal(forward, err)
	}
	last, err := c.ScoreOrder(ctx, tokens, nil, n-1)
	if err != nil || len(last) != 1 || !near(last[0], forward[n-1]) {
		t.Error(last, forward, err)
	}
	// With one unknown token both functions compute the same. Results are in generation order.
	if masked, err := c.ScoreMasked(ctx, tokens, nil, n-1); err != nil || len(masked) != 1 || !near(masked[0], last[0]) {
		t.Error(masked, last, err)
	}
	backward, err := c.ScoreOrder(ctx, tokens, reversed, 0)
	if err != nil || len(backward) != n || near(sum(backward), sum(forward)) {
		t.Error(backward, forward, err)
	}
	if masked, err := c.ScoreMasked(ctx, tokens, reversed, 0); err != nil || !near(masked[0], backward[0]) {
		t.Error(masked, backward, err)
	}
	if none, err := c.ScoreOrder(ctx, tokens, nil, n); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
	for _, known := range []int{-1, n + 1, math.MinInt, math.MaxInt} {
		_, err := c.ScoreOrder(ctx, tokens, nil, known)
		has(t, StatusInvalidArgument, err)
	}
	_, err = c.ScoreMasked(ctx, tokens, reversed[1:], 0)
	has(t, StatusInvalidArgument, err)
	reversed[0] = reversed[1]
	_, err = c.ScoreOrder(ctx, tokens, reversed, 0)
	has(t, StatusInvalidArgument, err)
}

func TestScoreText(t *testing.T) {
	c := newSession(t, openModel(t), small)
	ctx := context.Background()
	tokens := make([]uint32, 2*32+5) // more than two windows
	for i := range tokens {
		tokens[i] = uint32(5 + i%50)
	}
	score, err := c.ScoreText(ctx, tokens, DefaultScoreParams())
	if err != nil || len(score.LogProbs) != len(tokens) || score.ScoredTokens != len(tokens) || !near(score.NLL, -sum(score.LogProbs)) || score.Diffusion != 0 {
		t.Error(score, err)
	}
	params := DefaultScoreParams()
	var reports []float64
	params.RandomOrder, params.Orders, params.Draws, params.Alpha0, params.Seed = true, 2, 2, 0.5, 3
	params.Progress = func(fraction float64) error { reports = append(reports, fraction); return nil }
	score, err = c.ScoreText(ctx, tokens, params)
	if err != nil || score.NLL <= 0 || score.Diffusion <= 0 || score.Sequential <= 0 || score.DiffusionError <= 0 ||
		score.SequentialError <= 0 || score.LogProbs != nil {
		t.Error(score, err)
	}
	if len(reports) != 3 || reports[2] != 1 {
		t.Error(reports)
	}
	params.Progress = func(fraction float64) error {
		if fraction > 0.5 {
			return errEnough
		}
		return nil
	}
	if score, err = c.ScoreText(ctx, tokens, params); err != errEnough || score.NLL != 0 {
		t.Error(score, err)
	}
	for _, wrong := range []func(*ScoreParams){
		func(p *ScoreParams) { p.Orders = -1 },
		func(p *ScoreParams) { p.Draws = -1 },
		func(p *ScoreParams) { p.Alpha0 = 1.5 },
		func(p *ScoreParams) { p.Orders = 2 }, // only one order left to right
		func(p *ScoreParams) { p.Orders = 0 },
	} {
		params := DefaultScoreParams()
		wrong(&params)
		_, err := c.ScoreText(ctx, tokens, params)
		has(t, StatusInvalidArgument, err)
	}
	if _, err = c.ScoreText(ctx, tokens, ScoreParams{}); err == nil || !strings.Contains(err.Error(), "DefaultScoreParams") {
		t.Error(err)
	}
}
