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

// Session holds the memory and the threads for generating from a model. One call at a time computes. What the last step left
// can be read at any time: by Tokens, Order, Text, StopReason and Profile.
type Session struct {
	guard     sync.RWMutex // so that Close waits for running calls
	computing sync.Mutex   // held by the call that computes
	c         *owned
	running   map[uint32]running // what C does not keep of the sequences
}

// owned holds the C objects of a Session, and has the finalizer. A Session cannot have one: its logits callback may refer to
// it, and objects in a cycle are never finalized.
type owned struct {
	context      *C.esolm_context
	logitsHandle *C.uintptr_t // the cell with the handle that the C callback reads during a step
}

func (o *owned) free() {
	C.esolm_context_free(o.context)
	C.free(unsafe.Pointer(o.logitsHandle))
	o.context, o.logitsHandle = nil, nil
}

// KVType is the precision of a context's K/V cache.
type KVType int32

const (
	KVF16 KVType = C.ESOLM_KV_F16 // half precision
	KVF32 KVType = C.ESOLM_KV_F32 // single precision, for exact comparisons
	// Bytes, each 32 with a scale: 0.53 of the memory of KVF16, for longer texts. On the CPU with esolm's own kernels alone.
	KVQ8 KVType = C.ESOLM_KV_Q8_0
)

// SessionOptions are a context's parameters; 0 means the default, in parentheses.
type SessionOptions struct {
	Sequences  int    // the most sequences in a batch (1)
	Length     int    // the longest sequence, in tokens (the model's context length, at most 4096)
	BatchRows  int    // the most rows (tokens) in a batch, which the network computes at once (128)
	PromptRows int    // the most rows of prompts that a step feeds beside others (64; on devices 512); alone, if more, BatchRows
	Threads    int    // CPU threads (one per core that the process may use; as many as Pool has)
	KVType     KVType // how keys and values are stored (KVF16)
	GGML       bool   // use ggml's kernels on the CPU instead of esolm's own
	Pool       *Pool  // the threads to use (the context's own)
}

// c returns the options for C, and what lends the pool until it is called.
func (options SessionOptions) c() (params C.esolm_context_params, release func(), err error) {
	if options.Sequences < 0 || options.Length < 0 || options.BatchRows < 0 || options.PromptRows < 0 || options.Threads < 0 {
		return params, nil, &Error{StatusInvalidArgument, "a length or a number of sequences, rows or threads is negative"}
	}
	C.esolm_context_params_init(&params, C.sizeof_esolm_context_params)
	params.sequences = C.size_t(options.Sequences)
	params.length = C.size_t(options.Length)
	params.batch_rows = C.size_t(options.BatchRows)
	params.prompt_rows = C.size_t(options.PromptRows)
	params.threads = C.size_t(options.Threads)
	params.kv_type = C.int32_t(options.KVType)
	params.kernels = boolean(options.GGML) // ESOLM_KERNELS_OWN is 0, ESOLM_KERNELS_GGML 1
	release, err = options.Pool.lend(&params)
	return params, release, err
}

// MemoryUse is the memory of a model and a context, in bytes.
type MemoryUse struct {
	Weights uint64 // shared by all contexts of the model
	Arena   uint64 // a context's host memory; on the CPU it includes the next two
	KVCache uint64
	Compute uint64
}

// EstimateMemory returns the memory that a model file and a context of it would take. It reads the file's header only.
func EstimateMemory(path string, model ModelOptions, options SessionOptions) (MemoryUse, error) {
	name, err := cString("the path", path)
	if err != nil {
		return MemoryUse{}, err
	}
	defer C.free(unsafe.Pointer(name))
	params, free, err := model.c()
	if err != nil {
		return MemoryUse{}, err
	}
	defer free()
	limits, release, err := options.c()
	if err != nil {
		return MemoryUse{}, err
	}
	defer release()
	use := C.esolm_memory_use{struct_size: C.sizeof_esolm_memory_use}
	err = call(func() C.esolm_status { return C.esolm_memory_estimate(name, params, &limits, &use) })
	return memoryUse(use), err
}

// MemoryUse returns the exact memory of a context with these options.
func (m *Model) MemoryUse(options SessionOptions) (MemoryUse, error) {
	limits, release, err := options.c()
	if err != nil {
		return MemoryUse{}, err
	}
	defer release()
	use := C.esolm_memory_use{struct_size: C.sizeof_esolm_memory_use}
	err = m.with(func(model *C.esolm_model) C.esolm_status { return C.esolm_context_memory_use(model, &limits, &use) })
	return memoryUse(use), err
}

func memoryUse(use C.esolm_memory_use) MemoryUse {
	return MemoryUse{uint64(use.weights), uint64(use.arena), uint64(use.kv_cache), uint64(use.compute)}
}

// NewSession allocates all memory that generating needs. The context keeps the model alive, even after Model.Close.
func NewSession(model *Model, options SessionOptions) (*Session, error) {
	made := &owned{}
	params, release, err := options.c()
	if err != nil {
		return nil, err
	}
	defer release()
	err = model.with(func(c *C.esolm_model) C.esolm_status { return C.esolm_context_new(c, &params, &made.context) })
	if err != nil {
		return nil, err
	}
	made.logitsHandle = (*C.uintptr_t)(C.calloc(1, C.sizeof_uintptr_t))
	runtime.SetFinalizer(made, (*owned).free)
	return &Session{c: made}, nil
}

// Close waits for a running call and frees the context. A second Close does nothing.
func (c *Session) Close() error {
	c.guard.Lock()
	defer c.guard.Unlock()
	runtime.SetFinalizer(c.c, nil)
	c.c.free()
	c.running = nil
	return nil
}

// SetThreads has this many threads compute, up to as many as the context was made for.
func (c *Session) SetThreads(threads int) error {
	return c.with(func(context *C.esolm_context) C.esolm_status {
		return C.esolm_context_set_threads(context, C.size_t(threads))
	})
}

// Threads returns the number of threads that compute.
func (c *Session) Threads() (int, error) {
	var threads C.size_t
	err := c.with(func(context *C.esolm_context) C.esolm_status { return C.esolm_context_threads(context, &threads) })
	return int(threads), err
}

// MeasurePassOverhead measures what a pass costs beside its rows, in rows, for SetPassOverhead. It ends the generation.
func (c *Session) MeasurePassOverhead() (float32, error) {
	var rows C.float
	err := c.with(func(context *C.esolm_context) C.esolm_status {
		return c.forgetting(C.esolm_context_measure_pass_overhead(context, &rows))
	})
	return float32(rows), err
}

// SetPassOverhead says what a pass costs beside its rows, in rows. By it LookaheadAuto and WindowAuto decide, so their texts depend
// on it; 0 stands for what is the same on all machines.
func (c *Session) SetPassOverhead(rows float32) error {
	return c.with(func(context *C.esolm_context) C.esolm_status {
		return C.esolm_context_set_pass_overhead(context, C.float(rows))
	})
}

// Reset discards the generation with its tokens and texts.
func (c *Session) Reset() error {
	return c.with(func(context *C.esolm_context) C.esolm_status {
		return c.forgetting(C.esolm_context_reset(context))
	})
}

// forgetting drops, after a call that ended the generation, what is kept of its sequences.
func (c *Session) forgetting(status C.esolm_status) C.esolm_status {
	if status == C.ESOLM_OK {
		c.running = nil
	}
	return status
}

// with runs a call as the only one that computes.
func (c *Session) with(f func(context *C.esolm_context) C.esolm_status) error {
	if !c.computing.TryLock() {
		return ErrBusy
	}
	defer c.computing.Unlock()
	return c.read(f)
}

// read runs a call that may run beside others.
func (c *Session) read(f func(context *C.esolm_context) C.esolm_status) error {
	// Only Close has it alone. Not to wait for it: it may wait for the call whose callback this is in.
	if !c.guard.TryRLock() {
		return ErrClosed
	}
	defer c.guard.RUnlock()
	if c.c.context == nil {
		return ErrClosed
	}
	return call(func() C.esolm_status { return f(c.c.context) })
}

// Tokens returns the tokens of a sequence by position, the model's mask token where none is written yet.
func (c *Session) Tokens(sequence uint32) ([]uint32, error) {
	return filled(func(tokens []uint32, n *C.size_t) error {
		return c.read(func(context *C.esolm_context) C.esolm_status {
			return C.esolm_copy_tokens(context, C.uint32_t(sequence), first[C.uint32_t](tokens), C.size_t(len(tokens)), n)
		})
	}, 128)
}

// Order returns the order in which the positions of a sequence are generated, known ones first, as ScoreOrder takes it;
// while a window slides, those that are final.
func (c *Session) Order(sequence uint32) ([]uint32, error) {
	return filled(func(positions []uint32, n *C.size_t) error {
		return c.read(func(context *C.esolm_context) C.esolm_status {
			return C.esolm_copy_order(context, C.uint32_t(sequence), first[C.uint32_t](positions),
				C.size_t(len(positions)), n)
		})
	}, 128)
}

// Text returns the text of a sequence up to the first token that is unknown, or to what ended it.
func (c *Session) Text(sequence uint32) (string, error) {
	text, err := filled(func(text []byte, n *C.size_t) error {
		err := c.read(func(context *C.esolm_context) C.esolm_status {
			return C.esolm_copy_text(context, C.uint32_t(sequence), first[C.char](text), C.size_t(len(text)), n)
		})
		return withNUL(err, n)
	}, 512)
	return string(text), err
}

// StopReason says why a text ended.
type StopReason int32

// The reasons; esolm.h explains them.
const (
	StopNone      StopReason = C.ESOLM_STOP_NONE // the text is being written
	StopLength    StopReason = C.ESOLM_STOP_LENGTH
	StopEndOfText StopReason = C.ESOLM_STOP_END_OF_TEXT
	StopToken     StopReason = C.ESOLM_STOP_TOKEN
	StopString    StopReason = C.ESOLM_STOP_STRING
	StopCancelled StopReason = C.ESOLM_STOP_CANCELLED
	StopError     StopReason = C.ESOLM_STOP_ERROR
)

// StopReason returns why the text of a sequence ended.
func (c *Session) StopReason(sequence uint32) (StopReason, error) {
	var reason C.int32_t
	err := c.read(func(context *C.esolm_context) C.esolm_status {
		return C.esolm_stop_reason(context, C.uint32_t(sequence), &reason)
	})
	return StopReason(reason), err
}
