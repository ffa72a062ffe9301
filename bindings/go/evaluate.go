package esolm

/*
#include <esolm.h>
*/
import "C"

import "context"

// Logits returns the network's logits at positions of a sequence that are not written yet, one slice of the vocabulary's
// size for each: as if the position were the next and only one of a step. It changes nothing of the generation.
func (c *Session) Logits(ctx context.Context, sequence uint32, positions []uint32) ([][]float32, error) {
	return c.evaluate(ctx, positions, func(context *C.esolm_context, at *C.uint32_t, count C.size_t, to *C.float,
		capacity C.size_t, n *C.size_t) C.esolm_status {
		return C.esolm_evaluate_logits(context, C.uint32_t(sequence), at, count, to, capacity, n)
	})
}

// Probabilities is like Logits, for the probabilities that the token would be drawn with: after constraints, temperature
// and filters.
func (c *Session) Probabilities(ctx context.Context, sequence uint32, positions []uint32) ([][]float32, error) {
	return c.evaluate(ctx, positions, func(context *C.esolm_context, at *C.uint32_t, count C.size_t, to *C.float,
		capacity C.size_t, n *C.size_t) C.esolm_status {
		return C.esolm_evaluate_probabilities(context, C.uint32_t(sequence), at, count, to, capacity, n)
	})
}

// evaluation is C.esolm_evaluate_logits or C.esolm_evaluate_probabilities.
type evaluation func(context *C.esolm_context, at *C.uint32_t, count C.size_t, to *C.float, capacity C.size_t,
	n *C.size_t) C.esolm_status

func (c *Session) evaluate(ctx context.Context, positions []uint32, evaluate evaluation) ([][]float32, error) {
	if len(positions) == 0 {
		return nil, nil
	}
	all, err := filled(func(to []float32, n *C.size_t) error {
		return c.until(ctx, func(context *C.esolm_context) C.esolm_status {
			return evaluate(context, first[C.uint32_t](positions), C.size_t(len(positions)), first[C.float](to),
				C.size_t(len(to)), n)
		})
	}, 0)
	if err != nil {
		return nil, err
	}
	rows := make([][]float32, len(positions))
	width := len(all) / len(positions)
	for i := range rows {
		rows[i] = all[i*width : (i+1)*width]
	}
	return rows, nil
}
