package esolm

/*
#include <esolm.h>
*/
import "C"

import "context"

// AddSequence adds a sequence to the generation, between two steps or in a new context, and returns its number; Step runs it.
// The others are not disturbed, and its text is the one that the prompt would get alone in a generation with these
// parameters. A beginning that another sequence has, or had, is not computed again. Params.Logits is for this sequence only,
// Params.Constraints has one entry at most. A long prompt takes several steps, which write nothing of it yet
// (SessionOptions.PromptRows). Without a free sequence it fails with StatusInvalidArgument.
func (c *Session) AddSequence(ctx context.Context, prompt Prompt, params Params) (uint32, error) {
	var number C.uint32_t
	err := c.beginOne(ctx, prompt, params, func(context *C.esolm_context, known *C.esolm_prompt,
		p *C.esolm_generate_params) (uint32, C.esolm_status) {
		status := C.esolm_sequence_add(context, known, p, &number)
		return uint32(number), status
	})
	return uint32(number), err
}

// ExtendSequence is like Extend, for one sequence; the others are not disturbed.
func (c *Session) ExtendSequence(ctx context.Context, sequence uint32, prompt Prompt, params Params) error {
	return c.beginOne(ctx, prompt, params, func(context *C.esolm_context, known *C.esolm_prompt,
		p *C.esolm_generate_params) (uint32, C.esolm_status) {
		return sequence, C.esolm_sequence_extend(context, C.uint32_t(sequence), known, p)
	})
}

// AppendSequence goes on behind the text of a sequence, such as a model's answer, with a prompt whose positions count from
// there; the others are not disturbed. At most the first keep tokens of the text stay, all if keep is negative. The keys and
// values of what stays are kept: only the new tokens are computed, and those of the last step. Params.MaxTokens counts behind
// the prompt.
func (c *Session) AppendSequence(ctx context.Context, sequence uint32, keep int, prompt Prompt, params Params) error {
	most := ^C.size_t(0)
	if keep >= 0 {
		most = C.size_t(keep)
	}
	return c.beginOne(ctx, prompt, params, func(context *C.esolm_context, known *C.esolm_prompt,
		p *C.esolm_generate_params) (uint32, C.esolm_status) {
		return sequence, C.esolm_sequence_append(context, C.uint32_t(sequence), most, known, p)
	})
}

// beginOne makes a call that begins the sequence whose number it returns.
func (c *Session) beginOne(ctx context.Context, prompt Prompt, params Params,
	f func(*C.esolm_context, *C.esolm_prompt, *C.esolm_generate_params) (uint32, C.esolm_status)) error {
	var memory cMemory
	defer memory.free()
	known, err := cPrompts(&memory, []Prompt{prompt})
	if err != nil {
		return err
	}
	return c.begin(ctx, &memory, params, func(context *C.esolm_context, p *C.esolm_generate_params) C.esolm_status {
		number, status := f(context, known, p)
		if status == C.ESOLM_OK {
			if c.running == nil {
				c.running = map[uint32]running{}
			}
			c.running[number] = params.running()
		}
		return status
	})
}

// RemoveSequence removes a sequence, finished or not; read its text before. Its number may then be another's.
func (c *Session) RemoveSequence(sequence uint32) error {
	return c.with(func(context *C.esolm_context) C.esolm_status {
		status := C.esolm_sequence_remove(context, C.uint32_t(sequence))
		if status == C.ESOLM_OK {
			delete(c.running, sequence)
		}
		return status
	})
}

// CachedTokens returns how many tokens of a sequence have keys and values that the next steps need not compute. Before the
// first step of one that was added: those that came from another sequence.
func (c *Session) CachedTokens(sequence uint32) (int, error) {
	var n C.size_t
	err := c.with(func(context *C.esolm_context) C.esolm_status {
		return C.esolm_sequence_cached_tokens(context, C.uint32_t(sequence), &n)
	})
	return int(n), err
}
