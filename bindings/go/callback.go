package esolm

/*
#include <esolm.h>

int32_t esolmGoProgress(double fraction, uintptr_t handle);
int32_t esolmGoLogits(esolm_choice *choice, float *logits, uintptr_t handle);

static inline int32_t progress(double fraction, void *user_data)
{
	return esolmGoProgress(fraction, (uintptr_t)user_data);
}

static inline int32_t logits(const esolm_choice *choice, float *row, void *user_data)
{
	return esolmGoLogits((esolm_choice *)choice, row, *(uintptr_t *)user_data);
}

static inline void watch(esolm_model_params *params, uintptr_t handle)
{
	params->progress = progress;
	params->progress_data = (void *)handle;
}

static inline esolm_status score_watched(esolm_context *context, const uint32_t *tokens, size_t n_tokens,
	const esolm_score_params *params, double *log_p, size_t capacity, esolm_text_score *score, uintptr_t handle)
{
	return esolm_score_text(context, tokens, n_tokens, params, log_p, capacity, score, handle ? progress : NULL,
		(void *)handle);
}

static inline void edit(esolm_generate_params *params, uintptr_t *handle)
{
	params->logits = logits;
	params->logits_data = handle;
}
*/
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// Progress is told how much of a long operation is done, from 0 to 1 and never less than before. An error stops the
// operation, and is what its call returns. A panic arrives at the caller, too; runtime.Goexit must not be called.
type Progress func(fraction float64) error

// Choice is a token that is about to be drawn.
type Choice struct {
	Sequence    int       // the index of its prompt
	Slot        int       // the place in generation order
	Position    int       // the place in the text
	ModelLogits []float32 // the network's own output, valid during the call; not to be changed
}

// EditLogits sees and changes the logits that a token is drawn from, one for each token of the vocabulary, after the
// constraints were applied, before temperature, TopK and TopP. Minus infinity rules a token out. The slice is valid
// during the call. An error stops the generation, and is what Generation.Err returns.
//
// It runs in Generation.Next, on its goroutine. Other calls on the Context return ErrBusy; Close would wait for ever. A
// panic arrives at the caller of Next; runtime.Goexit (as in testing.T.FailNow) must not be called.
type EditLogits func(choice Choice, logits []float32) error

// outcome is how a caller's function ended. Neither an error nor a panic may cross C, so they wait here for the end of
// the call.
type outcome struct {
	err   error
	panic any
}

// run tells C whether to stop.
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

// result is the error of a call that ended with err.
func (o *outcome) result(err error) error {
	switch {
	case o.panic != nil:
		panic(o.panic)
	case o.err != nil:
		return o.err
	}
	return err
}

// watcher lends a Progress to C.
type watcher struct {
	outcome
	progress Progress
}

// lend is a number by which C names the watcher, until release is called; 0 if there is nothing to call.
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

// editor lends an EditLogits to C for one step: what is lent longer could never be collected.
type editor struct {
	outcome
	edit EditLogits
}

// lend puts a number that names the editor where the C callback looks for it, until release is called.
func (e *editor) lend(cell *C.uintptr_t) (release func()) {
	if e.edit == nil {
		return func() {}
	}
	handle := cgo.NewHandle(e)
	*cell = C.uintptr_t(handle)
	return handle.Delete
}

//export esolmGoLogits
func esolmGoLogits(choice *C.esolm_choice, logits *C.float, handle C.uintptr_t) C.int32_t {
	e := cgo.Handle(handle).Value().(*editor)
	n := int(choice.n_logits)
	return e.run(func() error {
		return e.edit(Choice{
			Sequence:    int(choice.sequence),
			Slot:        int(choice.slot),
			Position:    int(choice.position),
			ModelLogits: unsafe.Slice((*float32)(choice.model_logits), n),
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

func edit(params *C.esolm_generate_params, cell *C.uintptr_t) { C.edit(params, cell) }
