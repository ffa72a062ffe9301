package esolm

/*
#include <esolm.h>
*/
import "C"

import (
	"time"
	"unsafe"
)

// Save returns the state of the generation, for Restore: tokens, order, keys and values,
// but not the remaining steps.
func (c *Session) Save() ([]byte, error) {
	return filled(func(state []byte, n *C.size_t) error {
		return c.with(func(context *C.esolm_context) C.esolm_status {
			return C.esolm_state_save(context, unsafe.Pointer(first[C.char](state)), C.size_t(len(state)), n)
		})
	}, 0)
}

// Restore replaces the current generation by a saved one, which has no steps left; Extend continues it. A state of another
// model or a damaged one is an error with StatusBadFile.
func (c *Session) Restore(state []byte) error {
	if len(state) == 0 {
		return &Error{StatusBadFile, "the state is empty"}
	}
	return c.with(func(context *C.esolm_context) C.esolm_status {
		return c.forgetting(C.esolm_state_restore(context, unsafe.Pointer(&state[0]), C.size_t(len(state))))
	})
}

// SaveSequence returns the state of one sequence, for RestoreSequence of this session or another: such as a conversation that
// waits for its next message while others have its place. The others are not disturbed.
func (c *Session) SaveSequence(sequence uint32) ([]byte, error) {
	return filled(func(state []byte, n *C.size_t) error {
		return c.with(func(context *C.esolm_context) C.esolm_status {
			to := unsafe.Pointer(first[C.char](state))
			return C.esolm_sequence_save(context, C.uint32_t(sequence), to, C.size_t(len(state)), n)
		})
	}, 0)
}

// RestoreSequence adds a saved sequence, which has no steps left, and returns its number; ExtendSequence and AppendSequence go on
// with it. The others are not disturbed.
func (c *Session) RestoreSequence(state []byte) (uint32, error) {
	if len(state) == 0 {
		return 0, &Error{StatusBadFile, "the state is empty"}
	}
	var number C.uint32_t
	err := c.with(func(context *C.esolm_context) C.esolm_status {
		status := C.esolm_sequence_restore(context, unsafe.Pointer(&state[0]), C.size_t(len(state)), &number)
		if status == C.ESOLM_OK {
			delete(c.running, uint32(number))
		}
		return status
	})
	return uint32(number), err
}

// Profile is the time of a generation's steps so far, by kind of work.
type Profile struct {
	Blocks     time.Duration // matrix products of the transformer blocks
	Attention  time.Duration // attention over the K/V cache
	Vocabulary time.Duration // product with the output matrix
	Sampling   time.Duration // from logits to tokens
	Rest       time.Duration // everything else in the steps
}

// Profile returns the time that the generation's steps took.
func (c *Session) Profile() (Profile, error) {
	p := C.esolm_profile{struct_size: C.sizeof_esolm_profile}
	if err := c.read(func(context *C.esolm_context) C.esolm_status {
		return C.esolm_context_profile(context, &p)
	}); err != nil {
		return Profile{}, err
	}
	return Profile{seconds(p.blocks), seconds(p.attention), seconds(p.vocabulary), seconds(p.sampling),
		seconds(p.rest)}, nil
}

func seconds(s C.double) time.Duration { return time.Duration(float64(s) * float64(time.Second)) }
