package esolm

/*
#include <esolm.h>
#include <stdlib.h>
*/
import "C"

import (
	"runtime"
	"sync"
	"unsafe"
)

// Context is the memory and the threads for generating from a model. One call at a time may use it.
type Context struct {
	guard sync.Mutex
	c     *owned
	edit  EditLogits // of the generation
}

// owned is what a Context has in C's memory. The finalizer is here, since edit may refer to the Context: what is part of
// a cycle is never finalized.
type owned struct {
	context *C.esolm_context
	editing *C.uintptr_t // where the C callback looks for edit during a step
}

func (o *owned) free() {
	C.esolm_context_free(o.context)
	C.free(unsafe.Pointer(o.editing))
	o.context, o.editing = nil, nil
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
	return memoryUse(use), err
}

// MemoryUse is what a context with these options takes, to the byte.
func (m *Model) MemoryUse(options ContextOptions) (MemoryUse, error) {
	limits := options.c()
	use := C.esolm_memory_use{struct_size: C.sizeof_esolm_memory_use}
	err := m.with(func(model *C.esolm_model) C.esolm_status { return C.esolm_context_memory_use(model, &limits, &use) })
	return memoryUse(use), err
}

func memoryUse(use C.esolm_memory_use) MemoryUse {
	return MemoryUse{uint64(use.weights), uint64(use.arena), uint64(use.kv_cache), uint64(use.compute)}
}

// NewContext takes all memory that generating needs. The context keeps the model alive, even if it is closed.
func NewContext(model *Model, options ContextOptions) (*Context, error) {
	params := options.c()
	made := &owned{}
	err := model.with(func(c *C.esolm_model) C.esolm_status { return C.esolm_context_new(c, &params, &made.context) })
	if err != nil {
		return nil, err
	}
	made.editing = (*C.uintptr_t)(C.calloc(1, C.sizeof_uintptr_t))
	runtime.SetFinalizer(made, (*owned).free)
	return &Context{c: made}, nil
}

// Close frees the context, after the call that is running. Closing twice does nothing.
func (c *Context) Close() error {
	c.guard.Lock()
	defer c.guard.Unlock()
	runtime.SetFinalizer(c.c, nil)
	c.c.free()
	c.edit = nil
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
	if c.c.context == nil {
		return ErrClosed
	}
	return call(func() C.esolm_status { return f(c.c.context) })
}

// Tokens are those of a sequence by position, the model's mask token where none is written yet.
func (c *Context) Tokens(sequence int) ([]uint32, error) {
	return filled(func(tokens []uint32, n *C.size_t) error {
		return c.with(func(context *C.esolm_context) C.esolm_status {
			return C.esolm_copy_tokens(context, C.size_t(sequence), first[C.uint32_t](tokens), C.size_t(len(tokens)), n)
		})
	}, 128)
}

// Order is the order in which the positions of a sequence are generated, the known ones first: what ScoreOrder takes.
func (c *Context) Order(sequence int) ([]uint32, error) {
	return filled(func(positions []uint32, n *C.size_t) error {
		return c.with(func(context *C.esolm_context) C.esolm_status {
			return C.esolm_copy_order(context, C.size_t(sequence), first[C.uint32_t](positions),
				C.size_t(len(positions)), n)
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
