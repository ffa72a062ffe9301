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
	// The most likely tokens at the position of each update, the likeliest first; nil unless its Params.TopLogProbs is set.
	TopLogProbs [][]TokenLogProb
	Texts       []StepText // the new text of each sequence; nil unless Params.StepText is set
	// How many tokens had been proposed for this step, and how many of them are among the updates: Params.Lookahead.
	Proposed, Accepted int
}

// TokenLogProb is a token and its log-probability under the model. It is copied as a whole: the fields token and log_prob of C.
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
//	generation, err := c.Begin(ctx, prompts, esolm.DefaultParams())
//	for generation.Next(ctx) {
//		show(generation.Step())
//	}
//	if err := generation.Err(); err != nil { .. }
//
// It is invalid once its context begins another one.
type Generation struct {
	context *Session
	step    Step
	err     error
}

// running is what a Session keeps of the parameters of a sequence.
type running struct {
	logits LogitsCallback
	top    uint32 // Params.TopLogProbs
}

// start is C.esolm_begin or C.esolm_extend.
type start func(*C.esolm_context, *C.esolm_prompt, C.size_t, *C.esolm_generate_params) C.esolm_status

// Begin begins a generation of one sequence per prompt, and discards the previous one. If ctx ends meanwhile, its error is
// returned, as by all calls that take one.
func (c *Session) Begin(ctx context.Context, prompts []Prompt, params Params) (*Generation, error) {
	return c.start(ctx, prompts, params, func(context *C.esolm_context, known *C.esolm_prompt, n C.size_t,
		p *C.esolm_generate_params) C.esolm_status {
		return C.esolm_begin(context, known, n, p)
	})
}

// Extend continues from the tokens so far to a text of params.Length tokens, without computing their keys and values
// again. Steps that are left are discarded. Each sequence has a prompt, with further known tokens. Use another seed than
// before.
func (c *Session) Extend(ctx context.Context, prompts []Prompt, params Params) (*Generation, error) {
	return c.start(ctx, prompts, params, func(context *C.esolm_context, known *C.esolm_prompt, n C.size_t,
		p *C.esolm_generate_params) C.esolm_status {
		return C.esolm_extend(context, known, n, p)
	})
}

func (c *Session) start(ctx context.Context, prompts []Prompt, params Params, start start) (*Generation, error) {
	var memory cMemory
	defer memory.free()
	known, err := cPrompts(&memory, prompts)
	if err != nil {
		return nil, err
	}
	err = c.begin(ctx, &memory, params, func(context *C.esolm_context, p *C.esolm_generate_params) C.esolm_status {
		status := start(context, known, C.size_t(len(prompts)), p)
		if status == C.ESOLM_OK {
			c.running = map[uint32]running{}
			for i := range prompts {
				c.running[uint32(i)] = params.running()
			}
		}
		return status
	})
	if err != nil {
		return nil, err
	}
	return &Generation{context: c}, nil
}

func (params Params) running() running { return running{params.Logits, params.TopLogProbs} }

// begin makes a call that begins sequences with these parameters, in C memory.
func (c *Session) begin(ctx context.Context, memory *cMemory, params Params,
	f func(*C.esolm_context, *C.esolm_generate_params) C.esolm_status) error {
	p, err := params.c(memory)
	if err != nil {
		return err
	}
	return c.until(ctx, func(context *C.esolm_context) C.esolm_status {
		if params.Logits != nil {
			setLogitsCallback(p, c.c.logitsHandle)
		}
		return f(context, p)
	})
}

// Next runs the next step. It returns false at the end and after an error, which Err returns. If ctx ends, the running
// step is cancelled, and the generation ends with an error. After ErrBusy, Next may be called again.
func (g *Generation) Next(ctx context.Context) bool {
	g.step = Step{}
	if g.err != nil && !errors.Is(g.err, ErrBusy) {
		return false
	}
	step, err := g.context.Step(ctx)
	if step != nil {
		g.step = *step
	}
	g.err = err
	return step != nil
}

// Step runs the next step of all sequences, and returns nil if they are finished. If ctx ends, the running step is cancelled
// and ctx's error returned. After an error the sequences are as before the step; if it concerns one of them only, its
// StopReason is StopError, and the others go on once it is removed. (For one generation after another, see Generation.)
func (c *Session) Step(ctx context.Context) (*Step, error) {
	var step *Step
	var logits logitsCall
	err := logits.result(c.until(ctx, func(context *C.esolm_context) C.esolm_status {
		logits.of = c.running
		defer logits.lend(c.c.logitsHandle)()
		info := C.esolm_step_info{struct_size: C.sizeof_esolm_step_info}
		var done C.int32_t
		status := C.esolm_step(context, &info, &done)
		if status == C.ESOLM_OK && done == 0 {
			step = stepOf(&info)
			status = c.copyTopLogProbs(context, step)
		}
		return status
	}))
	if err != nil {
		return nil, err
	}
	return step, nil
}

// stepOf copies the result of a step from C.
func stepOf(info *C.esolm_step_info) *Step {
	n := int(info.n_updates)
	step := &Step{Index: int(info.index), Total: int(info.total), Updates: make([]Update, n),
		Proposed: int(info.n_proposed), Accepted: int(info.n_accepted)}
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

// copyTopLogProbs fills the step's TopLogProbs, for each update as many as its sequence wants. C has as many as the sequence
// that wants the most.
func (c *Session) copyTopLogProbs(context *C.esolm_context, step *Step) C.esolm_status {
	for i, update := range step.Updates {
		top := int(c.running[update.Sequence].top)
		if top == 0 {
			continue
		}
		if step.TopLogProbs == nil {
			step.TopLogProbs = make([][]TokenLogProb, len(step.Updates))
		}
		status, n := C.esolm_status(C.ESOLM_ERR_BUFFER_TOO_SMALL), C.size_t(top)
		for status == C.ESOLM_ERR_BUFFER_TOO_SMALL {
			entries := make([]TokenLogProb, n)
			status = C.esolm_copy_top_log_probs(context, C.size_t(i),
				(*C.esolm_token_log_prob)(unsafe.Pointer(&entries[0])), C.size_t(len(entries)), &n)
			step.TopLogProbs[i] = entries[:top]
		}
		if status != C.ESOLM_OK {
			return status
		}
	}
	return C.ESOLM_OK
}

// until is like with, for a call that is cancelled when ctx ends, and then returns ctx's error.
func (c *Session) until(ctx context.Context, f func(context *C.esolm_context) C.esolm_status) error {
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
func (c *Session) Generate(ctx context.Context, prompts []Prompt, params Params) error {
	generation, err := c.Begin(ctx, prompts, params)
	if err != nil {
		return err
	}
	for generation.Next(ctx) {
	}
	return generation.Err()
}
