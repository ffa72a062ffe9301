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

// Prompt holds the tokens of a sequence that are known. Positions may be nil: 0, 1, 2 and so on.
type Prompt struct {
	Tokens    []uint32
	Positions []uint32
}

// Params say what to generate; begin with DefaultParams.
type Params struct {
	Length      int     // tokens of a sequence, the prompt's included; 0 is the context's length
	Steps       int     // of the diffusion phase
	Seed        uint64  // the same seed gives the same text
	Alpha0      float64 // share of the tokens that diffusion writes
	Temperature float32
	TopP        float32
	TopK        uint32
}

// DefaultParams are the library's defaults.
func DefaultParams() Params {
	var p C.esolm_generate_params
	C.esolm_generate_params_init(&p, C.sizeof_esolm_generate_params)
	return Params{int(p.length), int(p.steps), uint64(p.seed), float64(p.alpha_0), float32(p.temperature),
		float32(p.top_p), uint32(p.top_k)}
}

// Update is a token that a step wrote.
type Update struct{ Sequence, Position, Token uint32 }

// Step is what a step did.
type Step struct {
	Index, Total int
	Updates      []Update
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
	if params.Length < 0 || params.Steps < 0 {
		return nil, &Error{StatusInvalidArgument, "a length or a number of steps is negative"}
	}
	var p C.esolm_generate_params
	C.esolm_generate_params_init(&p, C.sizeof_esolm_generate_params)
	p.length = C.size_t(params.Length)
	p.steps = C.size_t(params.Steps)
	p.seed = C.uint64_t(params.Seed)
	p.alpha_0 = C.double(params.Alpha0)
	p.temperature = C.float(params.Temperature)
	p.top_p = C.float(params.TopP)
	p.top_k = C.uint32_t(params.TopK)

	known, free, err := cPrompts(prompts)
	if err != nil {
		return nil, err
	}
	defer free()
	err = c.with(func(context *C.esolm_context) C.esolm_status {
		return C.esolm_begin(context, known, C.size_t(len(prompts)), &p)
	})
	if err != nil {
		return nil, err
	}
	return &Generation{context: c}, nil
}

// cPrompts copies prompts to C's memory: Go's may not be handed over with pointers in it.
func cPrompts(prompts []Prompt) (first *C.esolm_prompt, free func(), err error) {
	if len(prompts) == 0 {
		return nil, func() {}, nil
	}
	var taken []unsafe.Pointer
	free = func() {
		for _, memory := range taken {
			C.free(memory)
		}
	}
	take := func(n, size int) unsafe.Pointer {
		memory := C.calloc(C.size_t(n), C.size_t(size)) // cgo's calloc never fails
		taken = append(taken, memory)
		return memory
	}
	numbers := func(from []uint32) *C.uint32_t {
		memory := (*C.uint32_t)(take(len(from)+1, 4))
		copy(unsafe.Slice((*uint32)(memory), len(from)), from)
		return memory
	}
	first = (*C.esolm_prompt)(take(len(prompts), C.sizeof_esolm_prompt))
	for i, known := range unsafe.Slice(first, len(prompts)) {
		prompt := prompts[i]
		known.tokens = numbers(prompt.Tokens)
		known.count = C.size_t(len(prompt.Tokens))
		if prompt.Positions != nil {
			if len(prompt.Positions) != len(prompt.Tokens) {
				free()
				return nil, nil, &Error{StatusInvalidArgument, "a prompt has not one position for each token"}
			}
			known.positions = numbers(prompt.Positions)
		}
		unsafe.Slice(first, len(prompts))[i] = known
	}
	return first, free, nil
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
