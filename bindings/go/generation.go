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

// Step is what a step did.
type Step struct {
	Index, Total int
	Updates      []Update
	LogProbs     []float64 // of the updates, nil unless Params.LogProbs
}

// Generation runs step by step:
//
//	generation, err := c.Begin(prompts, esolm.DefaultParams())
//	for generation.Next(ctx) {
//		show(generation.Step())
//	}
//	if err := generation.Err(); err != nil { .. }
//
// It is no longer valid once its context begins another.
type Generation struct {
	context *Context
	step    Step
	err     error
}

// start is C.esolm_begin or C.esolm_extend.
type start func(*C.esolm_context, *C.esolm_prompt, C.size_t, *C.esolm_generate_params) C.esolm_status

// Begin begins a generation of one sequence per prompt, in place of the last one.
func (c *Context) Begin(prompts []Prompt, params Params) (*Generation, error) {
	return c.start(prompts, params, func(context *C.esolm_context, known *C.esolm_prompt, n C.size_t,
		p *C.esolm_generate_params) C.esolm_status {
		return C.esolm_begin(context, known, n, p)
	})
}

// Extend goes on from all that is known, without computing it again, in place of the steps that are left: a finished
// text becomes the beginning of one of params.Length tokens. There is one prompt for each sequence, of further known
// tokens. The seed should be another one.
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
			edit(p, c.c.editing)
		}
		status := start(context, known, C.size_t(len(prompts)), p)
		if status == C.ESOLM_OK {
			c.edit = params.Logits
		}
		return status
	})
	if err != nil {
		return nil, err
	}
	return &Generation{context: c}, nil
}

// Next runs the next step. It is false at the end, and after an error, which Err tells. When ctx ends, the running step
// is cancelled, and the generation with it. After ErrBusy it may be called again.
func (g *Generation) Next(ctx context.Context) bool {
	g.step = Step{}
	if g.err != nil && !errors.Is(g.err, ErrBusy) {
		return false
	}
	var done C.int32_t
	var editor editor
	g.err = editor.result(g.context.until(ctx, func(c *C.esolm_context) C.esolm_status {
		editor.edit = g.context.edit
		defer editor.lend(g.context.c.editing)()
		var info C.esolm_step_info
		status := C.esolm_step(c, &info, &done)
		if status == C.ESOLM_OK && done == 0 {
			g.step = stepOf(&info)
		}
		return status
	}))
	return g.err == nil && done == 0
}

// stepOf copies what a step did.
func stepOf(info *C.esolm_step_info) Step {
	n := int(info.n_updates)
	step := Step{Index: int(info.index), Total: int(info.total), Updates: make([]Update, n)}
	for i, u := range unsafe.Slice(info.updates, n) {
		step.Updates[i] = Update{uint32(u.sequence), uint32(u.position), uint32(u.token)}
	}
	if info.log_probs != nil {
		step.LogProbs = append([]float64(nil), unsafe.Slice((*float64)(info.log_probs), n)...)
	}
	return step
}

// until is as with, for a call that ends when ctx does, with ctx's error.
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

// cancelWith cancels what runs on the context when ctx ends, until the function that it returns is called.
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
		C.esolm_cancel_reset(c) // it was for this call only
	}
}

// Step is what the last Next did.
func (g *Generation) Step() Step { return g.step }

// Err is the error that ended the generation, nil if it ran to its end or is still running.
func (g *Generation) Err() error { return g.err }

// Generate runs a generation to its end; the result is read with Text or Tokens.
func (c *Context) Generate(ctx context.Context, prompts []Prompt, params Params) error {
	generation, err := c.Begin(prompts, params)
	if err != nil {
		return err
	}
	for generation.Next(ctx) {
	}
	return generation.Err()
}
