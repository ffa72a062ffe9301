package esolm

/*
#include <esolm.h>
*/
import "C"

import "context"

// ScoreParams say how a text is scored; begin with DefaultScoreParams.
type ScoreParams struct {
	Orders      int      // in which each window of the text is scored; 0 leaves this out
	RandomOrder bool     // random orders; else there is one, from left to right
	Draws       int      // times drawn for each window's bound with diffusion; 0 leaves this out
	Alpha0      float64  // the share of diffusion in that bound
	Seed        uint64   // chooses orders, times and masks
	Progress    Progress // told of each window; may be nil
}

// DefaultScoreParams are the library's defaults.
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
	LogProbs        []float64 // of each token, given those before it in the order; nil unless there is one order
}

// ScoreText scores a text of any length. It is cut into windows of the context's length, and each is scored by itself.
// It ends the context's generation.
func (c *Context) ScoreText(ctx context.Context, tokens []uint32, params ScoreParams) (TextScore, error) {
	if params.Orders < 0 || params.Draws < 0 {
		return TextScore{}, &Error{StatusInvalidArgument, "a number of orders or draws is negative"}
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
		return scoreText(context, tokens, &p, logP, &score, handle)
	}))
	if err != nil {
		return TextScore{}, err
	}
	return TextScore{float64(score.nll), float64(score.diffusion), float64(score.diffusion_error),
		float64(score.sequential), float64(score.sequential_error), logP}, nil
}

// Score is the natural logarithm of each token's probability, from left to right: how likely a text is. It ends the
// context's generation.
func (c *Context) Score(ctx context.Context, tokens []uint32) ([]float64, error) {
	score, err := c.ScoreText(ctx, tokens, DefaultScoreParams())
	return score.LogProbs, err
}

// ScoreOrder is the natural logarithm of the probability of each token but the first known ones in an order, given all
// before it in the order, as generation one token at a time would have it. tokens is a text of at most the context's
// length; order names each position once, nil is left to right. It ends the context's generation.
func (c *Context) ScoreOrder(ctx context.Context, tokens, order []uint32, known int) ([]float64, error) {
	return c.scores(ctx, tokens, order, known, func(context *C.esolm_context, tokens, order *C.uint32_t, n, known C.size_t,
		logP *C.double, capacity C.size_t) C.esolm_status {
		return C.esolm_score_order(context, tokens, order, n, known, logP, capacity)
	})
}

// ScoreMasked is as ScoreOrder, with all tokens but the known ones unknown at once: one step of diffusion.
func (c *Context) ScoreMasked(ctx context.Context, tokens, order []uint32, known int) ([]float64, error) {
	return c.scores(ctx, tokens, order, known, func(context *C.esolm_context, tokens, order *C.uint32_t, n, known C.size_t,
		logP *C.double, capacity C.size_t) C.esolm_status {
		return C.esolm_score_masked(context, tokens, order, n, known, logP, capacity)
	})
}

func (c *Context) scores(ctx context.Context, tokens, order []uint32, known int,
	score func(context *C.esolm_context, tokens, order *C.uint32_t, n, known C.size_t, logP *C.double,
		capacity C.size_t) C.esolm_status) ([]float64, error) {
	if order != nil && len(order) != len(tokens) {
		return nil, &Error{StatusInvalidArgument, "an order has not one position for each token"}
	}
	if known < 0 || known > len(tokens) {
		return nil, &Error{StatusInvalidArgument, "more tokens are known than there are, or less than none"}
	}
	logP := make([]float64, len(tokens)-known+1) // never empty: C wants an address
	err := c.until(ctx, func(context *C.esolm_context) C.esolm_status {
		return score(context, first[C.uint32_t](tokens), first[C.uint32_t](order), C.size_t(len(tokens)),
			C.size_t(known), first[C.double](logP), C.size_t(len(logP)))
	})
	if err != nil {
		return nil, err
	}
	return logP[:len(tokens)-known], nil
}
