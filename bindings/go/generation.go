package esolm

/*
#include <esolm.h>
*/
import "C"

import (
	"context"
	"errors"
	"unsafe"
)

// Update is a token that a step wrote.
type Update struct{ Sequence, Position, Token uint32 }

// Step is the result of a step.
type Step struct {
	Index, Total int
	Updates      []Update
	LogProbs     []float64 // log-probabilities of the updates; nil unless Params.LogProbs is set
	// The most likely tokens at the position of each update, the likeliest first; nil unless Params.TopLogProbs is set.
	TopLogProbs [][]TokenLogProb
	Texts       []StepText // the new text of each sequence; nil unless Params.StepText is set
}

// TokenLogProb is a token and its log-probability (log_prob) under the model.
type TokenLogProb struct {
	Token   uint32
	LogProb float32
}

// StepText is the text of a sequence that became final in a step, in whole characters. The text after Begin, which is the
// prompt's, and these texts, one behind the other, are the text at the end.
type StepText struct {
	Text       string
	StopReason StopReason // why the text ended
}

// Generation is a generation that runs step by step:
//
//	generation, err := c.Begin(prompts, esolm.DefaultParams())
//	for generation.Next(ctx) {
//		show(generation.Step())
//	}
//	if err := generation.Err(); err != nil { .. }
//
// It is invalid once its context begins another one.
type Generation struct {
	context *Context
	step    Step
	top     uint32 // Params.TopLogProbs
	err     error
}

// start is C.esolm_begin or C.esolm_extend.
type start func(*C.esolm_context, *C.esolm_prompt, C.size_t, *C.esolm_generate_params) C.esolm_status

// Begin begins a generation of one sequence per prompt, and discards the previous one.
func (c *Context) Begin(prompts []Prompt, params Params) (*Generation, error) {
	return c.start(prompts, params, func(context *C.esolm_context, known *C.esolm_prompt, n C.size_t,
		p *C.esolm_generate_params) C.esolm_status {
		return C.esolm_begin(context, known, n, p)
	})
}

// Extend continues from the tokens so far to a text of params.Length tokens, without computing their keys and values
// again. Steps that are left are discarded. Each sequence has a prompt, with further known tokens. Use another seed than
// before.
func (c *Context) Extend(prompts []Prompt, params Params) (*Generation, error) {
	return c.start(prompts, params, func(context *C.esolm_context, known *C.esolm_prompt, n C.size_t,
		p *C.esolm_generate_params) C.esolm_status {
		return C.esolm_extend(context, known, n, p)
	})
}

func (c *Context) start(prompts []Prompt, params Params, start start) (*Generation, error) {
	var memory cMemory
	defer memory.free()
	p, err := params.c(&memory)
	if err != nil {
		return nil, err
	}
	known, err := cPrompts(&memory, prompts)
	if err != nil {
		return nil, err
	}
	err = c.with(func(context *C.esolm_context) C.esolm_status {
		if params.Logits != nil {
			setLogitsCallback(p, c.c.logitsHandle)
		}
		status := start(context, known, C.size_t(len(prompts)), p)
		if status == C.ESOLM_OK {
			c.logits = params.Logits
		}
		return status
	})
	if err != nil {
		return nil, err
	}
	return &Generation{context: c, top: params.TopLogProbs}, nil
}

// Next runs the next step. It returns false at the end and after an error, which Err returns. If ctx ends, the running
// step is cancelled, and the generation ends with an error. After ErrBusy, Next may be called again.
func (g *Generation) Next(ctx context.Context) bool {
	g.step = Step{}
	if g.err != nil && !errors.Is(g.err, ErrBusy) {
		return false
	}
	var done C.int32_t
	var logits logitsCall
	g.err = logits.result(g.context.until(ctx, func(c *C.esolm_context) C.esolm_status {
		logits.callback = g.context.logits
		defer logits.lend(g.context.c.logitsHandle)()
		info := C.esolm_step_info{struct_size: C.sizeof_esolm_step_info}
		status := C.esolm_step(c, &info, &done)
		if status == C.ESOLM_OK && done == 0 {
			g.step = stepOf(&info)
			status = g.copyTopLogProbs(c)
		}
		return status
	}))
	return g.err == nil && done == 0
}

// stepOf copies the result of a step from C.
func stepOf(info *C.esolm_step_info) Step {
	n := int(info.n_updates)
	step := Step{Index: int(info.index), Total: int(info.total), Updates: make([]Update, n)}
	for i, u := range unsafe.Slice(info.updates, n) {
		step.Updates[i] = Update{uint32(u.sequence), uint32(u.position), uint32(u.token)}
	}
	if info.log_probs != nil {
		step.LogProbs = append([]float64(nil), unsafe.Slice((*float64)(info.log_probs), n)...)
	}
	for _, text := range unsafe.Slice(info.texts, int(info.n_texts)) {
		step.Texts = append(step.Texts, StepText{C.GoStringN(text.text, C.int(text.len)), StopReason(text.stop_reason)})
	}
	return step
}

// copyTopLogProbs fills the step's TopLogProbs.
func (g *Generation) copyTopLogProbs(c *C.esolm_context) C.esolm_status {
	for i := range g.step.Updates {
		if g.top == 0 {
			break
		}
		entries := make([]TokenLogProb, g.top)
		var n C.size_t
		status := C.esolm_copy_top_log_probs(c, C.size_t(i), (*C.esolm_token_log_prob)(unsafe.Pointer(&entries[0])),
			C.size_t(len(entries)), &n)
		if status != C.ESOLM_OK {
			return status
		}
		g.step.TopLogProbs = append(g.step.TopLogProbs, entries[:n])
	}
	return C.ESOLM_OK
}

// until is like with, for a call that is cancelled when ctx ends, and then returns ctx's error.
func (c *Context) until(ctx context.Context, f func(context *C.esolm_context) C.esolm_status) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := c.with(func(context *C.esolm_context) C.esolm_status {
		defer cancelWith(ctx, context)()
		return f(context)
	})
	if errors.Is(err, &Error{Status: StatusCancelled}) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// cancelWith cancels the context's running call when ctx ends, until stop is called.
func cancelWith(ctx context.Context, c *C.esolm_context) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	finished, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-ctx.Done():
			C.esolm_cancel(c)
		case <-finished:
		}
	}()
	return func() {
		close(finished)
		<-gone
		C.esolm_cancel_reset(c) // the cancel was for this call only
	}
}

// Step returns the result of the step that the last Next ran.
func (g *Generation) Step() Step { return g.step }

// Err returns the error that ended the generation, nil if it is complete or still running.
func (g *Generation) Err() error { return g.err }

// Generate runs a generation to its end; read the result with Text or Tokens.
func (c *Context) Generate(ctx context.Context, prompts []Prompt, params Params) error {
	generation, err := c.Begin(prompts, params)
	if err != nil {
		return err
	}
	for generation.Next(ctx) {
	}
	return generation.Err()
}
