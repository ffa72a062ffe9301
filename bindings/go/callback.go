package esolm

/*
#include "exported.h"

static inline int32_t progress(double fraction, void *user_data)
{
	return esolmGoProgress(fraction, (uintptr_t)user_data);
}

static inline int32_t on_logits(const esolm_logits_row *row, float *logits, void *user_data)
{
	return esolmGoLogits((esolm_logits_row *)row, logits, *(uintptr_t *)user_data);
}

static inline void watch(esolm_model_params *params, uintptr_t handle)
{
	params->progress_callback = progress;
	params->progress_user_data = (void *)handle;
}

static inline esolm_status score_watched(esolm_context *context, const uint32_t *tokens, size_t n_tokens,
	const esolm_score_params *params, double *log_p, size_t capacity, esolm_text_score *score, uintptr_t handle)
{
	return esolm_score_text(context, tokens, n_tokens, params, log_p, capacity, score, handle ? progress : NULL,
		(void *)handle);
}

static inline void set_logits_callback(esolm_generate_params *params, uintptr_t *handle)
{
	params->logits_callback = on_logits;
	params->logits_user_data = handle;
}
*/
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// Progress is called with the fraction of a long operation that is done, from 0 to 1 and never decreasing. If it returns an
// error, the operation stops and its call returns that error. A panic is passed on to the caller, too; do not call
// runtime.Goexit.
type Progress func(fraction float64) error

// LogitsRow is a row of logits, from which the token of one position is about to be drawn.
type LogitsRow struct {
	Sequence    uint32    // the index of its prompt, or the number that AddSequence returned
	Slot        uint32    // its index in generation order
	Position    uint32    // its index in the text
	ModelLogits []float32 // the network's output, valid during the call; read-only
}

// LogitsCallback reads and changes the logits that a token is drawn from, one for each token of the vocabulary. It is called
// after the constraints and before temperature, TopK and TopP. Minus infinity excludes a token. The slice is valid during
// the call. If it returns an error, the step is undone, and Generation.Err or Session.Step returns that error.
//
// It runs in Generation.Next or Session.Step, on its goroutine. Calls on the Session that compute return ErrBusy meanwhile, texts
// can be read, and Close would deadlock. A panic is passed on to the caller; do not call runtime.Goexit (testing.T.FailNow does).
type LogitsCallback func(row LogitsRow, logits []float32) error

// outcome holds the error or panic of a caller's function until the C call has returned: neither may pass through C.
type outcome struct {
	err   error
	panic any
}

// run calls f, and returns to C whether to stop.
func (o *outcome) run(f func() error) (stop C.int32_t) {
	defer func() {
		if o.panic = recover(); o.panic != nil {
			stop = 1
		}
	}()
	if o.err = f(); o.err != nil {
		return 1
	}
	return 0
}

// result returns the error of the caller's function, else err, the error of the C call. It repeats a panic.
func (o *outcome) result(err error) error {
	switch {
	case o.panic != nil:
		panic(o.panic)
	case o.err != nil:
		return o.err
	}
	return err
}

// watcher passes a Progress to C.
type watcher struct {
	outcome
	progress Progress
}

// lend returns a handle for C that is valid until release is called; 0 if there is no Progress.
func (w *watcher) lend() (handle C.uintptr_t, release func()) {
	if w.progress == nil {
		return 0, func() {}
	}
	made := cgo.NewHandle(w)
	return C.uintptr_t(made), made.Delete
}

//export esolmGoProgress
func esolmGoProgress(fraction C.double, handle C.uintptr_t) C.int32_t {
	w := cgo.Handle(handle).Value().(*watcher)
	return w.run(func() error { return w.progress(float64(fraction)) })
}

// logitsCall passes the LogitsCallbacks to C for one step only: what a handle refers to is never garbage collected.
type logitsCall struct {
	outcome
	of map[uint32]running
}

// lend writes a handle to the cell that the C callback reads; it is valid until release is called.
func (l *logitsCall) lend(cell *C.uintptr_t) (release func()) {
	wanted := false
	for _, of := range l.of {
		wanted = wanted || of.logits != nil
	}
	if !wanted {
		return func() {}
	}
	handle := cgo.NewHandle(l)
	*cell = C.uintptr_t(handle)
	return handle.Delete
}

//export esolmGoLogits
func esolmGoLogits(row *C.esolm_logits_row, logits *C.float, handle C.uintptr_t) C.int32_t {
	l := cgo.Handle(handle).Value().(*logitsCall)
	n := int(row.n_logits)
	return l.run(func() error {
		return l.of[uint32(row.sequence)].logits(LogitsRow{
			Sequence:    uint32(row.sequence),
			Slot:        uint32(row.slot),
			Position:    uint32(row.position),
			ModelLogits: unsafe.Slice((*float32)(row.model_logits), n),
		}, unsafe.Slice((*float32)(logits), n))
	})
}

func watch(params *C.esolm_model_params, handle C.uintptr_t) {
	if handle != 0 {
		C.watch(params, handle)
	}
}

func scoreText(c *C.esolm_context, tokens []uint32, params *C.esolm_score_params, logP []float64,
	score *C.esolm_text_score, handle C.uintptr_t) C.esolm_status {
	return C.score_watched(c, first[C.uint32_t](tokens), C.size_t(len(tokens)), params, first[C.double](logP),
		C.size_t(len(logP)), score, handle)
}

func setLogitsCallback(params *C.esolm_generate_params, cell *C.uintptr_t) {
	C.set_logits_callback(params, cell)
}
