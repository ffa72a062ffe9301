package esolm

/*
#include <esolm.h>
*/
import "C"

import "context"

// ScoreParams are the parameters of ScoreText; start with DefaultScoreParams.
type ScoreParams struct {
	Orders      int      // number of orders in which each window is scored; 0 for no NLL
	RandomOrder bool     // random orders; otherwise there is one, left to right
	Draws       int      // number of random times for each window's diffusion bound; 0 for no bound
	Alpha0      float64  // the share of diffusion in that bound
	Seed        uint64   // of the random orders, times and masks
	Progress    Progress // called after each window; nil for none
}

// DefaultScoreParams returns the library's defaults.
func DefaultScoreParams() ScoreParams {
	var p C.esolm_score_params
	C.esolm_score_params_init(&p, C.sizeof_esolm_score_params)
	return ScoreParams{Orders: int(p.orders), RandomOrder: p.random_order != 0, Draws: int(p.draws),
		Alpha0: float64(p.alpha_0), Seed: uint64(p.seed)}
}

// TextScore is how likely a text is, in nats.
type TextScore struct {
	NLL             float64   // -log p(text) is at most this; 0 without orders
	Diffusion       float64   // -log p(text) is at most Diffusion + Sequential; 0 without draws
	DiffusionError  float64   // its standard error; NaN for one draw
	Sequential      float64   // what the sequential phase adds where Alpha0 is less than 1
	SequentialError float64   // its standard error; NaN for one draw
	ScoredTokens    int       // how many tokens have a probability: the mean is NLL / ScoredTokens
	LogProbs        []float64 // of each token, given those before it in the order; nil unless Orders is 1
}

// ScoreText scores a text of any length. It is cut into windows of the context's length, which are scored independently.
// The context's generation is discarded.
func (c *Session) ScoreText(ctx context.Context, tokens []uint32, params ScoreParams) (TextScore, error) {
	if params.Orders < 0 || params.Draws < 0 {
		return TextScore{}, &Error{StatusInvalidArgument, "a number of orders or draws is negative"}
	}
	if params.Orders == 0 && params.Draws == 0 {
		return TextScore{}, &Error{StatusInvalidArgument, "neither Orders nor Draws; start with DefaultScoreParams"}
	}
	var p C.esolm_score_params
	C.esolm_score_params_init(&p, C.sizeof_esolm_score_params)
	p.orders, p.draws = C.size_t(params.Orders), C.size_t(params.Draws)
	p.random_order = boolean(params.RandomOrder)
	p.alpha_0, p.seed = C.double(params.Alpha0), C.uint64_t(params.Seed)

	var logP []float64
	if params.Orders == 1 {
		logP = make([]float64, len(tokens))
	}
	score := C.esolm_text_score{struct_size: C.sizeof_esolm_text_score}
	watcher := &watcher{progress: params.Progress}
	handle, release := watcher.lend()
	defer release()
	err := watcher.result(c.until(ctx, func(context *C.esolm_context) C.esolm_status {
		return c.forgetting(scoreText(context, tokens, &p, logP, &score, handle))
	}))
	if err != nil {
		return TextScore{}, err
	}
	return TextScore{float64(score.nll), float64(score.diffusion), float64(score.diffusion_error),
		float64(score.sequential), float64(score.sequential_error), int(score.scored_tokens), logP}, nil
}

// Score returns the log-probability (natural logarithm) of each token, given those to its left. The context's generation is
// discarded.
func (c *Session) Score(ctx context.Context, tokens []uint32) ([]float64, error) {
	score, err := c.ScoreText(ctx, tokens, DefaultScoreParams())
	return score.LogProbs, err
}

// ScoreOrder returns the log-probability of each token given all tokens before it in an order, as when generating one
// token per step. The first `known` tokens of the order are given, and not scored. tokens is a text of at most the
// context's length; order contains each position once, nil is left to right. The context's generation is discarded.
func (c *Session) ScoreOrder(ctx context.Context, tokens, order []uint32, known int) ([]float64, error) {
	return c.scores(ctx, tokens, order, known, func(context *C.esolm_context, tokens, order *C.uint32_t, n, known C.size_t,
		logP *C.double, capacity C.size_t) C.esolm_status {
		return C.esolm_score_order(context, tokens, order, n, known, logP, capacity)
	})
}

// ScoreMasked is like ScoreOrder, but every token is predicted from the known ones alone, as in one step of diffusion.
func (c *Session) ScoreMasked(ctx context.Context, tokens, order []uint32, known int) ([]float64, error) {
	return c.scores(ctx, tokens, order, known, func(context *C.esolm_context, tokens, order *C.uint32_t, n, known C.size_t,
		logP *C.double, capacity C.size_t) C.esolm_status {
		return C.esolm_score_masked(context, tokens, order, n, known, logP, capacity)
	})
}

func (c *Session) scores(ctx context.Context, tokens, order []uint32, known int,
	score func(context *C.esolm_context, tokens, order *C.uint32_t, n, known C.size_t, logP *C.double,
		capacity C.size_t) C.esolm_status) ([]float64, error) {
	if order != nil && len(order) != len(tokens) {
		return nil, &Error{StatusInvalidArgument, "an order needs one position for each token"}
	}
	if known < 0 || known > len(tokens) {
		return nil, &Error{StatusInvalidArgument, "the number of known tokens is negative or larger than the text"}
	}
	logP := make([]float64, len(tokens)-known+1) // never empty: C needs an address
	err := c.until(ctx, func(context *C.esolm_context) C.esolm_status {
		return c.forgetting(score(context, first[C.uint32_t](tokens), first[C.uint32_t](order), C.size_t(len(tokens)),
			C.size_t(known), first[C.double](logP), C.size_t(len(logP))))
	})
	if err != nil {
		return nil, err
	}
	return logP[:len(tokens)-known], nil
}
