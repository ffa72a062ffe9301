package esolm

/*
#include <esolm.h>
*/
import "C"

import (
	"time"
	"unsafe"
)

// Save copies everything known of the generation, for Restore. Steps that are left are not part of it.
func (c *Context) Save() ([]byte, error) {
	return filled(func(state []byte, n *C.size_t) error {
		return c.with(func(context *C.esolm_context) C.esolm_status {
			return C.esolm_state_save(context, unsafe.Pointer(first[C.char](state)), C.size_t(len(state)), n)
		})
	}, 0)
}

// Restore takes up what Save gave, in place of the current generation: its tokens are known, no steps are left, and
// Extend goes on. The bytes of another model, or damaged ones, are an error with StatusBadFile.
func (c *Context) Restore(state []byte) error {
	if len(state) == 0 {
		return &Error{StatusBadFile, "the state is empty"}
	}
	return c.with(func(context *C.esolm_context) C.esolm_status {
		return C.esolm_state_restore(context, unsafe.Pointer(&state[0]), C.size_t(len(state)))
	})
}

// Profile is the time of a generation's steps so far, by what it was spent on.
type Profile struct {
	Blocks     time.Duration // products with the matrices of the blocks
	Attention  time.Duration // queries over keys and values in the cache
	Vocabulary time.Duration // products with the vocabulary's matrix
	Sampling   time.Duration // from logits to tokens
	Rest       time.Duration // everything else in the steps
}

// Profile tells where the time of the generation's steps went.
func (c *Context) Profile() (Profile, error) {
	p := C.esolm_profile{struct_size: C.sizeof_esolm_profile}
	if err := c.with(func(context *C.esolm_context) C.esolm_status {
		return C.esolm_context_profile(context, &p)
	}); err != nil {
		return Profile{}, err
	}
	return Profile{seconds(p.blocks), seconds(p.attention), seconds(p.vocabulary), seconds(p.sampling),
		seconds(p.rest)}, nil
}

func seconds(s C.double) time.Duration { return time.Duration(float64(s) * float64(time.Second)) }
