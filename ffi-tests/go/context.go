package esolm

/*
#include <esolm.h>
#include <stdlib.h>
*/
import "C"

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"unsafe"
)

// Context is the memory and the threads for generating from a model. One call at a time may use it.
type Context struct {
	guard sync.Mutex
	c     *C.esolm_context
}

// ContextOptions are a context's limits; what is 0 has its default.
type ContextOptions struct {
	Sequences int  // most sequences side by side (1)
	Length    int  // longest sequence in tokens (the model's)
	PassRows  int  // most rows that go through the network at once (128)
	Threads   int  // of the CPU (one per core)
	F32Cache  bool // keep keys and values in single precision
	GGML      bool // compute with ggml's kernels on the CPU, too
}

func (options ContextOptions) c() (params C.esolm_context_params) {
	C.esolm_context_params_init(&params, C.sizeof_esolm_context_params)
	params.sequences = C.size_t(options.Sequences)
	params.length = C.size_t(options.Length)
	params.pass_rows = C.size_t(options.PassRows)
	params.threads = C.size_t(options.Threads)
	params.kv_type = boolean(options.F32Cache) // ESOLM_KV_F16 is 0, ESOLM_KV_F32 1
	params.kernels = boolean(options.GGML)     // ESOLM_KERNELS_OWN is 0, ESOLM_KERNELS_GGML 1
	return params
}

// MemoryUse says where memory goes, in bytes.
type MemoryUse struct {
	Weights uint64 // the model's, shared by all contexts
	Arena   uint64 // a context's host memory; on the CPU the two below are in it
	KVCache uint64
	Compute uint64
}

// EstimateMemory is what the model in the file at path and a context of it would take; it reads the file's header only.
func EstimateMemory(path string, model ModelOptions, options ContextOptions) (MemoryUse, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	params, free := model.c()
	defer free()
	limits := options.c()
	use := C.esolm_memory_use{struct_size: C.sizeof_esolm_memory_use}
	err := call(func() C.esolm_status { return C.esolm_memory_estimate(name, params, &limits, &use) })
	return MemoryUse{uint64(use.weights), uint64(use.arena), uint64(use.kv_cache), uint64(use.compute)}, err
}

// NewContext takes all memory that generating needs. The context keeps the model alive, even if it is closed.
func NewContext(model *Model, options ContextOptions) (*Context, error) {
	params := options.c()
	made := &Context{}
	err := model.with(func(c *C.esolm_model) C.esolm_status { return C.esolm_context_new(c, &params, &made.c) })
	if err != nil {
		return nil, err
	}
	runtime.SetFinalizer(made, (*Context).Close)
	return made, nil
}

// Close frees the context, after the call that is running. Closing twice does nothing.
func (c *Context) Close() error {
	c.guard.Lock()
	defer c.guard.Unlock()
	runtime.SetFinalizer(c, nil)
	C.esolm_context_free(c.c)
	c.c = nil
	return nil
}

// Reset forgets the generation: its tokens and texts.
func (c *Context) Reset() error {
	return c.with(func(context *C.esolm_context) C.esolm_status { return C.esolm_context_reset(context) })
}

func (c *Context) with(f func(context *C.esolm_context) C.esolm_status) error {
	if !c.guard.TryLock() {
		return ErrBusy
	}
	defer c.guard.Unlock()
	if c.c == nil {
		return ErrClosed
	}
	return call(func() C.esolm_status { return f(c.c) })
}

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

// Begin begins a generation of one sequence per prompt, in place of the last one.
func (c *Context) Begin(prompts []Prompt, params Params) (*Generation, error) {
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
		return C.esolm_begin(context, known, C.size_t(len(prompts)), p)
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
	if g.err = ctx.Err(); g.err != nil {
		return false
	}
	var done C.int32_t
	g.err = g.context.with(func(context *C.esolm_context) C.esolm_status {
		defer cancelWith(ctx, context)()
		var info C.esolm_step_info
		status := C.esolm_step(context, &info, &done)
		if status == C.ESOLM_OK && done == 0 {
			g.step = Step{Index: int(info.index), Total: int(info.total), Updates: make([]Update, info.n_updates)}
			for i, u := range unsafe.Slice(info.updates, int(info.n_updates)) {
				g.step.Updates[i] = Update{uint32(u.sequence), uint32(u.position), uint32(u.token)}
			}
			if info.log_probs != nil {
				all := unsafe.Slice((*float64)(info.log_probs), int(info.n_updates))
				g.step.LogProbs = append([]float64(nil), all...)
			}
		}
		return status
	})
	if failure, ok := g.err.(*Error); ok && failure.Status == StatusCancelled && ctx.Err() != nil {
		g.err = ctx.Err()
	}
	return g.err == nil && done == 0
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

// Tokens are those of a sequence by position, the model's mask token where none is written yet.
func (c *Context) Tokens(sequence int) ([]uint32, error) {
	return filled(func(tokens []uint32, n *C.size_t) error {
		return c.with(func(context *C.esolm_context) C.esolm_status {
			return C.esolm_copy_tokens(context, C.size_t(sequence), first[C.uint32_t](tokens), C.size_t(len(tokens)), n)
		})
	}, 128)
}

// Text is a sequence's finished beginning.
func (c *Context) Text(sequence int) (string, error) {
	text, err := filled(func(text []byte, n *C.size_t) error {
		err := c.with(func(context *C.esolm_context) C.esolm_status {
			return C.esolm_copy_text(context, C.size_t(sequence), first[C.char](text), C.size_t(len(text)), n)
		})
		return withNUL(err, n)
	}, 512)
	return string(text), err
}

// Score is the natural logarithm of each token's probability, from left to right: how likely a text is. It ends the
// context's generation.
func (c *Context) Score(ctx context.Context, tokens []uint32) ([]float64, error) {
	scores := make([]float64, len(tokens))
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err := c.with(func(context *C.esolm_context) C.esolm_status {
		defer cancelWith(ctx, context)()
		info := C.esolm_text_score{struct_size: C.sizeof_esolm_text_score}
		return C.esolm_score_text(context, first[C.uint32_t](tokens), C.size_t(len(tokens)), nil,
			first[C.double](scores), C.size_t(len(scores)), &info, nil, nil)
	})
	if failure, ok := err.(*Error); ok && failure.Status == StatusCancelled && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return scores, nil
}
