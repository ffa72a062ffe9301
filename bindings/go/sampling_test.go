package esolm

import (
	"context"
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

const favourite = 30

// unfiltered writes one token after the other, drawn from all of them.
func unfiltered() Params {
	params := few()
	params.Steps, params.Alpha0, params.Temperature, params.TopP, params.IgnoreEOS = 0, 0, 1, 1, true
	return params
}

// biased always writes the most likely token, and makes one of them by far the likeliest; penalties show in how often it is
// written in spite of that.
func biased(rule Constraints) Params {
	params := unfiltered()
	rule.Bias = map[uint32]float32{favourite: 1000}
	params.Temperature, params.Constraints = 0, []Constraints{rule}
	return params
}

func refused(t *testing.T, c *Session, params Params) {
	t.Helper()
	_, err := c.Begin(context.Background(), make([]Prompt, 1), params)
	has(t, StatusInvalidArgument, err)
}

// possible returns how many tokens the first one is drawn from.
func possible(t *testing.T, c *Session, params Params) (number int) {
	t.Helper()
	if _, err := c.Begin(context.Background(), make([]Prompt, 1), params); err != nil {
		t.Fatal(err)
	}
	rows, err := c.Probabilities(context.Background(), 0, []uint32{0})
	if err != nil {
		t.Fatal(err)
	}
	for _, probability := range rows[0] {
		if probability > 0 {
			number++
		}
	}
	return number
}

func TestFilters(t *testing.T) {
	c := newSession(t, openModel(t), small)
	nan := float32(math.NaN())
	text, all := written(t, c, unfiltered()), possible(t, c, unfiltered())
	for _, test := range []struct {
		name       string
		set, spoil func(*Params)
	}{
		{"top_k", func(p *Params) { p.TopK = 5 }, nil},
		{"top_p", func(p *Params) { p.TopP = 0.5 }, func(p *Params) { p.TopP = 1.5 }},
		{"min_p", func(p *Params) { p.MinP = 0.5 }, func(p *Params) { p.MinP = 1.5 }},
		{"typical_p", func(p *Params) { p.TypicalP = 0.2 }, func(p *Params) { p.TypicalP = 0 }},
		{"top_n_sigma", func(p *Params) { p.TopNSigma = 1 }, func(p *Params) { p.TopNSigma = nan }},
		{"temperature", func(p *Params) { p.Temperature = 0 }, func(p *Params) { p.Temperature = nan }},
	} {
		params := unfiltered()
		test.set(&params)
		if some := possible(t, c, params); some == 0 || some > all/2 || test.name == "top_k" && some != 5 {
			t.Errorf("%s leaves %d of %d tokens", test.name, some, all)
		}
		if reflect.DeepEqual(written(t, c, params), text) {
			t.Error(test.name, "does not change the text")
		}
		if test.spoil == nil {
			continue
		}
		test.spoil(&params)
		_, err := c.Begin(context.Background(), make([]Prompt, 1), params)
		has(t, StatusInvalidArgument, err)
		if err == nil || !strings.Contains(err.Error(), test.name) {
			t.Error(test.name, err)
		}
	}
	// The tightest filters leave the most likely token.
	greedy := unfiltered()
	greedy.Temperature = 0
	best := written(t, c, greedy)
	for _, set := range []func(*Params){
		func(p *Params) { p.TopK = 1 }, func(p *Params) { p.TopP = 1e-9 },
		func(p *Params) { p.MinP = 1 }, func(p *Params) { p.TopNSigma = 1e-6 },
	} {
		tight := unfiltered()
		set(&tight)
		if found := written(t, c, tight); !reflect.DeepEqual(found, best) {
			t.Errorf("%+v: %v instead of %v", tight, found, best)
		}
	}
}

func TestPenalties(t *testing.T) {
	c := newSession(t, openModel(t), small)
	for _, test := range []struct {
		rule  Constraints
		times int
	}{
		{Constraints{}, 32}, {Constraints{FrequencyPenalty: 300}, 4}, {Constraints{FrequencyPenalty: 400}, 3},
		{Constraints{PresencePenalty: 300}, 32}, {Constraints{PresencePenalty: 2000}, 1},
		{Constraints{Banned: []uint32{favourite}}, 0},
	} {
		times := 0
		for _, token := range written(t, c, biased(test.rule)) {
			if token == favourite {
				times++
			}
		}
		if times != test.times {
			t.Errorf("%+v: %d times instead of %d", test.rule, times, test.times)
		}
	}
	// Without the bias a strong penalty of each kind leaves no token twice.
	nan := float32(math.NaN())
	for _, rules := range [][2]Constraints{
		{{RepetitionPenalty: 1e9}, {RepetitionPenalty: -1}}, {{FrequencyPenalty: 1e6}, {FrequencyPenalty: nan}},
		{{PresencePenalty: 1e6}, {PresencePenalty: nan}},
	} {
		params := biased(Constraints{})
		params.Constraints = rules[:1]
		seen := map[uint32]bool{}
		for _, token := range written(t, c, params) {
			if seen[token] {
				t.Errorf("%+v: %d is repeated", rules[0], token)
			}
			seen[token] = true
		}
		params.Constraints = rules[1:]
		refused(t, c, params)
	}
}

// How long the first run of the token is that has the bias.
func TestDry(t *testing.T) {
	model := openModel(t)
	c := newSession(t, model, small)
	for _, test := range []struct {
		dry Dry
		run int
	}{
		{Dry{}, 32}, {Dry{Multiplier: 1e6}, 3}, {Dry{Multiplier: 1e6, AllowedLength: 4}, 5},
		{Dry{Multiplier: 600, Base: 2}, 4}, {Dry{Multiplier: 600, Base: 1}, 32},
		{Dry{Multiplier: 1e6, AllowedLength: 3, Range: 2}, 32}, // two are too few to be a repetition
		{Dry{Multiplier: 1e6, Breakers: []uint32{favourite}}, 32},
	} {
		tokens, run := written(t, c, biased(Constraints{Dry: test.dry})), 0
		for run < len(tokens) && tokens[run] == favourite {
			run++
		}
		if run != test.run {
			t.Errorf("%+v: a run of %d instead of %d", test.dry, run, test.run)
		}
	}
	info, err := model.Info()
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []Dry{
		{Multiplier: -1}, {Multiplier: 1, Base: 0.5}, {Multiplier: 1, Breakers: []uint32{info.MaskToken}},
	} {
		refused(t, c, biased(Constraints{Dry: wrong}))
	}
}

// A library without the feature "grammar" says so.
func TestGrammars(t *testing.T) {
	model := openModel(t)
	c := newSession(t, model, small)
	for _, test := range []struct {
		rule, wrong Constraints
		pattern     string
	}{
		{Constraints{Regex: "[ab]{3}c"}, Constraints{Regex: "("}, "^[ab]{3}c$"},
		{Constraints{JSONSchema: `{"enum": ["cat", "dog"]}`}, Constraints{JSONSchema: "{"}, `^"(cat|dog)"$`},
	} {
		params := unfiltered()
		params.Constraints = []Constraints{test.rule}
		err := c.Generate(context.Background(), make([]Prompt, 1), params)
		if !model.Supports(FeatureGrammar) {
			has(t, StatusUnsupported, err)
			continue
		}
		if text, _ := c.Text(0); err != nil || !regexp.MustCompile(test.pattern).MatchString(text) {
			t.Error(text, err)
		}
		params.Constraints = []Constraints{test.wrong}
		refused(t, c, params)
	}
	params := unfiltered()
	params.Constraints = []Constraints{{Regex: "a", JSONSchema: "{}"}}
	refused(t, c, params)
}

func TestCustomOrder(t *testing.T) {
	c := newSession(t, openModel(t), small)
	params := few()
	params.Alpha0, params.Order = 1, OrderCustom
	for i := uint32(0); i < 32; i++ {
		params.CustomOrder = append(params.CustomOrder, 31-i)
	}
	if _, err := c.Begin(context.Background(), make([]Prompt, 1), params); err != nil {
		t.Fatal(err)
	}
	if order, err := c.Order(0); err != nil || !reflect.DeepEqual(order, params.CustomOrder) {
		t.Error(order, err)
	}
	params.CustomOrder = params.CustomOrder[1:]
	refused(t, c, params)
}

func TestSeedsAndSchedules(t *testing.T) {
	c := newSession(t, openModel(t), small)
	params := unfiltered()
	one, again := written(t, c, params), written(t, c, params)
	params.Seed++
	if other := written(t, c, params); !reflect.DeepEqual(one, again) || reflect.DeepEqual(one, other) {
		t.Error(one, again, other)
	}
	params.Alpha0, params.Schedule = 1, []uint32{5, 3}
	generation, err := c.Begin(context.Background(), make([]Prompt, 1), params)
	if err != nil {
		t.Fatal(err)
	}
	var counts []int
	for generation.Next(context.Background()) {
		counts = append(counts, len(generation.Step().Updates))
	}
	if !reflect.DeepEqual(counts, []int{5, 3, 3, 3, 3, 3, 3, 3, 3, 3}) {
		t.Error(counts, generation.Err())
	}
	params.Schedule = []uint32{4, 0}
	refused(t, c, params)
}
