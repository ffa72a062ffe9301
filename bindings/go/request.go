package esolm

/*
#include <esolm.h>
#include <stdlib.h>
*/
import "C"

import (
	"strings"
	"unsafe"
)

// Prompt holds the known tokens of a sequence and their positions; nil positions are 0, 1, 2 and so on.
type Prompt struct {
	Tokens    []uint32
	Positions []uint32
}

// Order is the order in which positions are generated.
type Order int32

// The orders; esolm.h explains them.
const (
	OrderRandom          Order = C.ESOLM_ORDER_RANDOM
	OrderLeftToRight     Order = C.ESOLM_ORDER_LEFT_TO_RIGHT
	OrderStrided         Order = C.ESOLM_ORDER_STRIDED
	OrderStridedShuffled Order = C.ESOLM_ORDER_STRIDED_SHUFFLED
	OrderBlocks          Order = C.ESOLM_ORDER_BLOCKS
	OrderCustom          Order = C.ESOLM_ORDER_CUSTOM
)

// Confidence is a measure of how certain the model is of a token.
type Confidence int32

// The measures; esolm.h explains them.
const (
	ConfidenceNone        Confidence = C.ESOLM_CONFIDENCE_NONE
	ConfidenceProbability Confidence = C.ESOLM_CONFIDENCE_PROBABILITY
	ConfidenceMargin      Confidence = C.ESOLM_CONFIDENCE_MARGIN
	ConfidenceEntropy     Confidence = C.ESOLM_CONFIDENCE_ENTROPY
)

// Alpha0Auto stands for a Params.Alpha0 of 1 if a confidence, a window or an order other than left to right is given, or if
// the model does nothing else; otherwise what the model's file says, or 0, which writes the best text, and which a grammar takes. With
// steps or a schedule it is 1 where it would be 0.
const Alpha0Auto = C.ESOLM_ALPHA_0_AUTO

// Auto and TopKAuto stand for what the model's file says (esolm.default.temperature and so on), or the library's default.
const (
	Auto     = C.ESOLM_AUTO
	TopKAuto = C.ESOLM_TOP_K_AUTO
	// LookaheadAuto, for Params.Lookahead: as many as pay.
	LookaheadAuto = C.ESOLM_LOOKAHEAD_AUTO
	// WindowAuto, for Params.Window, with InOrder or WeDLM: as many positions as pay, by those filled so far and not by a clock.
	WindowAuto = C.ESOLM_WINDOW_AUTO
)

// Params are the parameters of a generation; start with DefaultParams.
type Params struct {
	Length      int     // tokens of a sequence, the prompt's included; 0 is the context's length
	MaxTokens   int     // most tokens behind the prompt; 0 is no limit but Length
	Steps       int     // number of steps of the diffusion phase; 0, the default: what the file says, or 128
	Seed        uint64  // the same seed gives the same text
	Alpha0      float64 // share of the tokens that diffusion writes, 0 to 1; Alpha0Auto by default
	Temperature float32 // Auto by default, as TopP, MinP, TypicalP and TopNSigma
	TopP        float32 // 1 is no limit
	TopK        uint32  // TopKAuto by default; 0 is no limit
	Order       Order
	OrderSize   int            // the stride or the block's size
	CustomOrder []uint32       // for OrderCustom: every position once
	Schedule    []uint32       // tokens of each diffusion step, the last number repeated; nil is the model's schedule
	Constraints []Constraints  // none, one for all sequences, or one for each
	LogProbs    bool           // set Step.LogProbs
	Logits      LogitsCallback // reads and may change the logits of every token; nil for none
	Confidence  Confidence     // adaptive steps, which write the tokens the model is certain of: needs Alpha0 1, no Schedule
	Window      int            // positions that an adaptive step considers; without Confidence it slides by WeDLM's rule
	Threshold   float32        // the confidence from which on an adaptive step writes a token (entropy: at most)
	Penalty     float32        // what Confidence loses for each position behind the first that a step considers; 0 is off
	InOrder     bool           // the Window slides from left to right, as WeDLM's always does; Eso-LM (B) can
	StopTokens  []uint32       // tokens that end a text when the model writes them
	StopStrings []string       // texts that end a text when the model writes them; the text ends before them
	IgnoreEOS   bool           // the end-of-text token does not end a text
	MinP        float32        // leaves out tokens less likely than this times the most likely one; 0 is no limit
	TypicalP    float32        // locally typical sampling; 1 is no limit
	TopNSigma   float32        // leaves out logits more than this many standard deviations below the largest; 0 is no limit
	TopLogProbs uint32         // how many of the most likely tokens Step.TopLogProbs has for each update
	StepText    bool           // set Step.Texts
	Lookahead   uint32         // tokens that a step proposes where it writes one: the same distribution in fewer steps; 0 is off
}

// Constraints restrict the tokens of a sequence; the zero value is no restriction.
type Constraints struct {
	Allowed           map[uint32][]uint32 // by position, the tokens that are allowed there
	Banned            []uint32            // tokens that are never written
	Bias              map[uint32]float32  // by token, a number that is added to its logit
	RepetitionPenalty float32             // above 1 makes tokens that are already in the text less likely; 0 is off
	FrequencyPenalty  float32             // subtracted from a token's logit for each time that it is in the text
	PresencePenalty   float32             // subtracted from the logit of a token that is in the text
	Dry               Dry                 // makes tokens less likely that would lengthen a repeated run
	// A regular expression, or a JSON schema, that the written text must match: one hole, or all that follows the prompt,
	// from left to right and one token per step. A library without the feature "grammar" returns StatusUnsupported.
	Regex, JSONSchema string
}

// Dry is a penalty ("don't repeat yourself"): if the last n tokens directly left of a position, n at least AllowedLength,
// occur earlier, too, the logit of the token that followed there is lowered by Multiplier * Base^(n - AllowedLength).
type Dry struct {
	Multiplier    float32  // 0 is off
	Base          float32  // 0 is 1.75
	AllowedLength uint32   // 0 is 2
	Range         uint32   // how many tokens left of a position are looked at; 0 is all
	Breakers      []uint32 // tokens that end a repetition
}

// DefaultParams returns the library's defaults.
func DefaultParams() Params {
	var p C.esolm_generate_params
	C.esolm_generate_params_init(&p, C.sizeof_esolm_generate_params)
	return Params{Length: int(p.length), Steps: int(p.steps), Seed: uint64(p.seed), Alpha0: float64(p.alpha_0),
		Temperature: float32(p.temperature), TopP: float32(p.top_p), TopK: uint32(p.top_k),
		MinP: float32(p.min_p), TypicalP: float32(p.typical_p), TopNSigma: float32(p.top_n_sigma)}
}

// cMemory is a list of C allocations, for structs with pointers: cgo does not allow those in Go memory.
type cMemory []unsafe.Pointer

func (m *cMemory) free() {
	for _, memory := range *m {
		C.free(memory)
	}
}

func (m *cMemory) take(n int, size C.size_t) unsafe.Pointer {
	memory := C.calloc(C.size_t(n+1), size) // cgo's calloc never fails
	*m = append(*m, memory)
	return memory
}

func (m *cMemory) strings(from []string) (**C.char, error) {
	if len(from) == 0 {
		return nil, nil
	}
	memory := (**C.char)(m.take(len(from), C.size_t(unsafe.Sizeof(uintptr(0)))))
	for i, text := range from {
		c, err := cString("a stop string", text)
		if err != nil {
			return nil, err
		}
		*m = append(*m, unsafe.Pointer(c))
		unsafe.Slice(memory, len(from))[i] = c
	}
	return memory, nil
}

func (m *cMemory) numbers(from []uint32) *C.uint32_t {
	if from == nil {
		return nil
	}
	memory := (*C.uint32_t)(m.take(len(from), 4))
	copy(unsafe.Slice((*uint32)(memory), len(from)), from)
	return memory
}

// text returns a C string, NULL for an empty one. what is its name in an error.
func (m *cMemory) text(what, from string) (*C.char, error) {
	if from == "" {
		return nil, nil
	}
	text, err := cString(what, from)
	*m = append(*m, unsafe.Pointer(text))
	return text, err
}

// cString returns a copy in C memory. In C a text ends at its first NUL, so one that has a NUL is an error.
func cString(what, text string) (*C.char, error) {
	if strings.IndexByte(text, 0) >= 0 {
		return nil, &Error{StatusInvalidArgument, what + " has a NUL"}
	}
	return C.CString(text), nil
}

// c returns the C struct, in C memory.
func (params Params) c(memory *cMemory) (*C.esolm_generate_params, error) {
	if params.Length < 0 || params.MaxTokens < 0 || params.Steps < 0 || params.OrderSize < 0 || params.Window < 0 {
		return nil, &Error{StatusInvalidArgument, "a length, a size or a number of steps is negative"}
	}
	if params.TopP == 0 {
		return nil, &Error{StatusInvalidArgument, "Params.TopP is 0; start with DefaultParams"}
	}
	p := (*C.esolm_generate_params)(memory.take(1, C.sizeof_esolm_generate_params))
	C.esolm_generate_params_init(p, C.sizeof_esolm_generate_params)
	p.length = C.size_t(params.Length)
	p.steps = C.size_t(params.Steps)
	p.seed = C.uint64_t(params.Seed)
	p.alpha_0 = C.double(params.Alpha0)
	p.temperature = C.float(params.Temperature)
	p.top_p = C.float(params.TopP)
	p.top_k = C.uint32_t(params.TopK)
	p.min_p = C.float(params.MinP)
	p.typical_p = C.float(params.TypicalP)
	p.top_n_sigma = C.float(params.TopNSigma)
	p.top_log_probs = C.uint32_t(params.TopLogProbs)
	p.lookahead = C.uint32_t(params.Lookahead)
	p.order = C.int32_t(params.Order)
	p.order_size = C.size_t(params.OrderSize)
	p.custom_order = memory.numbers(params.CustomOrder)
	p.n_custom_order = C.size_t(len(params.CustomOrder))
	p.schedule = memory.numbers(params.Schedule)
	p.n_schedule = C.size_t(len(params.Schedule))
	p.log_probs = boolean(params.LogProbs)
	p.confidence = C.int32_t(params.Confidence)
	p.window = C.size_t(params.Window)
	p.threshold = C.float(params.Threshold)
	p.penalty = C.float(params.Penalty)
	p.in_order = boolean(params.InOrder)
	p.max_tokens = C.size_t(params.MaxTokens)
	p.stop_tokens = memory.numbers(params.StopTokens)
	p.n_stop_tokens = C.size_t(len(params.StopTokens))
	stopStrings, err := memory.strings(params.StopStrings)
	if err != nil {
		return nil, err
	}
	p.stop_strings = stopStrings
	p.n_stop_strings = C.size_t(len(params.StopStrings))
	p.ignore_eos = boolean(params.IgnoreEOS)
	p.step_text = boolean(params.StepText)
	if n := len(params.Constraints); n > 0 {
		rules := (**C.esolm_constraints)(memory.take(n, C.size_t(unsafe.Sizeof(uintptr(0)))))
		for i, rule := range params.Constraints {
			if unsafe.Slice(rules, n)[i], err = rule.c(memory); err != nil {
				return nil, err
			}
		}
		p.constraints = rules
		p.n_constraints = C.size_t(n)
	}
	return p, nil
}

func (rule Constraints) c(memory *cMemory) (*C.esolm_constraints, error) {
	c := (*C.esolm_constraints)(memory.take(1, C.sizeof_esolm_constraints))
	c.struct_size = C.sizeof_esolm_constraints
	c.banned = memory.numbers(rule.Banned)
	c.n_banned = C.size_t(len(rule.Banned))
	c.repetition_penalty = C.float(rule.RepetitionPenalty)
	c.frequency_penalty = C.float(rule.FrequencyPenalty)
	c.presence_penalty = C.float(rule.PresencePenalty)
	c.dry_multiplier = C.float(rule.Dry.Multiplier)
	c.dry_base = C.float(rule.Dry.Base)
	c.dry_allowed_length = C.uint32_t(rule.Dry.AllowedLength)
	c.dry_range = C.uint32_t(rule.Dry.Range)
	c.dry_breakers = memory.numbers(rule.Dry.Breakers)
	c.n_dry_breakers = C.size_t(len(rule.Dry.Breakers))
	var err error
	if c.regex, err = memory.text("the expression", rule.Regex); err != nil {
		return nil, err
	}
	if c.json_schema, err = memory.text("the schema", rule.JSONSchema); err != nil {
		return nil, err
	}

	allowed := (*C.esolm_allowed_tokens)(memory.take(len(rule.Allowed), C.sizeof_esolm_allowed_tokens))
	for position, tokens := range rule.Allowed {
		place := &unsafe.Slice(allowed, len(rule.Allowed))[c.n_allowed]
		place.position = C.uint32_t(position)
		place.tokens = memory.numbers(tokens)
		place.n_tokens = C.size_t(len(tokens))
		c.n_allowed++
	}
	c.allowed = allowed

	bias := (*C.esolm_logit_bias)(memory.take(len(rule.Bias), C.sizeof_esolm_logit_bias))
	for token, value := range rule.Bias {
		unsafe.Slice(bias, len(rule.Bias))[c.n_bias] = C.esolm_logit_bias{token: C.uint32_t(token), bias: C.float(value)}
		c.n_bias++
	}
	c.bias = bias
	return c, nil
}

// cPrompts copies prompts to C memory.
func cPrompts(memory *cMemory, prompts []Prompt) (*C.esolm_prompt, error) {
	all := (*C.esolm_prompt)(memory.take(len(prompts), C.sizeof_esolm_prompt))
	for i, prompt := range prompts {
		if prompt.Positions != nil && len(prompt.Positions) != len(prompt.Tokens) {
			return nil, &Error{StatusInvalidArgument, "a prompt needs one position for each token"}
		}
		unsafe.Slice(all, len(prompts))[i] = C.esolm_prompt{
			tokens: memory.numbers(prompt.Tokens), positions: memory.numbers(prompt.Positions),
			count: C.size_t(len(prompt.Tokens)),
		}
	}
	return all, nil
}

// Template converts a text with holes, such as "Once upon a time {{mask 12}} happily ever after.", to a prompt. length is
// the whole text's number of tokens, including the holes. A space before a hole belongs to what is written there.
func (m *Model) Template(text string) (prompt Prompt, length int, err error) {
	return m.TemplateWith(text, TokenizeOptions{})
}

// TemplateWith converts a text with holes to a prompt, with options: ParseSpecial is for all of it, Continues for its
// beginning.
func (m *Model) TemplateWith(text string, options TokenizeOptions) (prompt Prompt, length int, err error) {
	c, params := C.CString(text), options.c()
	defer C.free(unsafe.Pointer(c))
	var all C.size_t
	var positions []uint32
	prompt.Tokens, err = filled(func(tokens []uint32, n *C.size_t) error {
		positions = make([]uint32, len(tokens))
		return m.with(func(model *C.esolm_model) C.esolm_status {
			return C.esolm_tokenize_template_with_params(model, c, C.size_t(len(text)), params,
				first[C.uint32_t](tokens), first[C.uint32_t](positions), C.size_t(len(tokens)), n, &all)
		})
	}, len(text)/2+8)
	prompt.Positions = positions[:len(prompt.Tokens)]
	return prompt, int(all), err
}
