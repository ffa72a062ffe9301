package esolm

import (
	"context"
	"errors"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var path = func() string {
	if path := os.Getenv("ESOLM_MODEL"); path != "" {
		return path
	}
	return "../../models/stories-q8_0.gguf"
}()

var small = SessionOptions{Sequences: 2, Length: 32, Threads: 1}

func openModel(t *testing.T) *Model {
	t.Helper()
	model, err := Open(path, ModelOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { model.Close() })
	return model
}

func newSession(t *testing.T, model *Model, options SessionOptions) *Session {
	t.Helper()
	c, err := NewSession(model, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func few() Params {
	params := DefaultParams()
	params.Steps, params.Seed, params.Alpha0 = 6, 7, 0.8
	return params
}

func has(t *testing.T, status Status, err error) {
	t.Helper()
	if !errors.Is(err, &Error{Status: status}) {
		t.Errorf("%v instead of %v", err, status)
	}
}

func TestOpening(t *testing.T) {
	_, err := Open("/nowhere.gguf", ModelOptions{})
	has(t, StatusIO, err)
	if !strings.Contains(err.Error(), "/nowhere.gguf") {
		t.Error(err)
	}
	_, err = Open(path, ModelOptions{Device: "abacus"})
	has(t, StatusDevice, err)
	_, err = OpenBytes(nil, ModelOptions{})
	has(t, StatusBadFile, err)
	_, err = OpenBytes([]byte("no model"), ModelOptions{})
	has(t, StatusBadFile, err)
	if devices, err := Devices(); err != nil || len(devices) == 0 || devices[0].Name == "" {
		t.Error(devices, err)
	}
	if Version() == "" {
		t.Error("no version")
	}
}

// The caller's bytes are its own again, whatever the mode.
func TestBytesAreCopied(t *testing.T) {
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := func(model *Model) string {
		c := newSession(t, model, small)
		if err := c.Generate(context.Background(), make([]Prompt, 1), few()); err != nil {
			t.Fatal(err)
		}
		text, err := c.Text(0)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	expected := text(openModel(t))
	for _, options := range []ModelOptions{{}, {Copy: true}, {Repack: true}} {
		bytes := append([]byte(nil), file...)
		model, err := OpenBytes(bytes, options)
		if err != nil {
			t.Fatal(err)
		}
		for i := range bytes {
			bytes[i] = 0
		}
		if found := text(model); found != expected {
			t.Errorf("%+v: %q instead of %q", options, found, expected)
		}
		model.Close()
	}
}

// The same text, whatever the layout: this file's matrices lie in plain rows.
func TestPlainRowsAreRepacked(t *testing.T) {
	var texts []string
	for _, options := range []ModelOptions{{}, {Repack: true}} {
		model, err := Open("../../fuzz/seeds/gguf/q8_0", options)
		if err != nil {
			t.Fatal(err)
		}
		c := newSession(t, model, SessionOptions{Threads: 1})
		if err := c.Generate(context.Background(), make([]Prompt, 1), few()); err != nil {
			t.Fatal(err)
		}
		text, err := c.Text(0)
		if err != nil || text == "" {
			t.Fatal(text, err)
		}
		texts = append(texts, text)
		model.Close()
	}
	if texts[0] != texts[1] {
		t.Error(texts)
	}
}

func TestSizesAreNotNegative(t *testing.T) {
	model := openModel(t)
	for _, options := range []SessionOptions{{Sequences: -1}, {Length: -1}, {BatchRows: -1}, {PromptRows: -1}, {Threads: -1}} {
		_, err := NewSession(model, options)
		has(t, StatusInvalidArgument, err)
		_, err = model.MemoryUse(options)
		has(t, StatusInvalidArgument, err)
	}
	// A pool's threads count, as in the session.
	pool, err := NewPool(PoolOptions{Threads: 3})
	if err != nil {
		t.Fatal(err)
	}
	pooled, err := model.MemoryUse(SessionOptions{Pool: pool})
	own, other := model.MemoryUse(SessionOptions{Threads: 3})
	if err != nil || other != nil || pooled != own {
		t.Error(pooled, own, err, other)
	}
	pool.Close()
	if _, err := model.MemoryUse(SessionOptions{Pool: pool}); err != ErrClosed {
		t.Error(err)
	}
}

func TestDefaults(t *testing.T) {
	if p := DefaultParams(); p.Alpha0 != Alpha0Auto || p.TopP != Auto || p.Temperature != Auto || p.TopK != TopKAuto || p.Steps != 0 {
		t.Error(p)
	}
}

func TestModel(t *testing.T) {
	model := openModel(t)
	info, err := model.Info()
	if err != nil || info.VocabSize < 3 || int(info.MaskToken) >= info.VocabSize {
		t.Error(info, err)
	}
	for _, text := range []string{"", "Once upon a time", strings.Repeat("a very long text, ", 99)} {
		tokens, err := model.Tokenize(text)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := model.Detokenize(tokens); err != nil || back != text {
			t.Errorf("%q became %q (%v)", text, back, err)
		}
	}
	special := TokenizeOptions{ParseSpecial: true}
	if tokens, err := model.TokenizeWith("[MASK]<|endoftext|>", special); err != nil || len(tokens) != 2 {
		t.Errorf("special tokens: %v, %v", tokens, err)
	}
	if tokens, err := model.Tokenize("[MASK]"); err != nil || len(tokens) < 2 {
		t.Errorf("[MASK] as text: %v, %v", tokens, err)
	}
	if _, length, err := model.TemplateWith("<|endoftext|> {{mask 2}}", special); err != nil || length != 3 {
		t.Errorf("template: %d tokens, %v", length, err)
	}
	tokens, err := model.TokenizeWith(" and on", TokenizeOptions{Continues: true})
	if back, _ := model.Detokenize(tokens); err != nil || back != " and on" {
		t.Errorf("a text that goes on: %q, %v", back, err)
	}
	_, err = model.Tokenize("\xff")
	has(t, StatusInvalidArgument, err)
	_, err = model.Detokenize([]uint32{4000000000})
	has(t, StatusTokenizer, err)
	if err := model.Close(); err != nil {
		t.Error(err)
	}
	model.Close()
	if _, err := model.Info(); err != ErrClosed {
		t.Error(err)
	}
}

func TestStopRules(t *testing.T) {
	model := openModel(t)
	words, err := model.Tokenize("Once upon a time")
	if err != nil {
		t.Fatal(err)
	}
	prompts := []Prompt{{Tokens: words}}
	c := newSession(t, model, SessionOptions{Length: 64, Threads: 1})
	params := DefaultParams()
	params.Seed, params.IgnoreEOS = 3, true
	run := func(change func(*Params)) (string, []uint32, StopReason) {
		changed := params
		change(&changed)
		if err := c.Generate(context.Background(), prompts, changed); err != nil {
			t.Fatal(err)
		}
		text, err := c.Text(0)
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := c.Tokens(0)
		if err != nil {
			t.Fatal(err)
		}
		reason, err := c.StopReason(0)
		if err != nil {
			t.Fatal(err)
		}
		return text, tokens, reason
	}
	whole, all, reason := run(func(*Params) {})
	if len(all) != 64 || reason != StopLength {
		t.Error(len(all), reason)
	}
	if _, tokens, reason := run(func(p *Params) { p.MaxTokens = 5 }); len(tokens) != len(words)+5 || reason != StopLength {
		t.Error(tokens, reason)
	}
	_, tokens, reason := run(func(p *Params) { p.StopTokens = all[20:21] })
	if len(tokens) > 21 || !reflect.DeepEqual(tokens, all[:len(tokens)]) || reason != StopToken {
		t.Error(tokens, reason)
	}
	stop := whole[len(whole)-20 : len(whole)-15]
	text, _, reason := run(func(p *Params) { p.StopStrings = []string{"no such text", stop} })
	if !strings.HasPrefix(whole, text+stop) || reason != StopString {
		t.Errorf("%q %q %v", text, stop, reason)
	}
	// The texts of the steps, joined, are the text.
	streaming := params
	streaming.StepText, streaming.StopStrings = true, []string{stop}
	generation, err := c.Begin(context.Background(), prompts, streaming)
	if err != nil {
		t.Fatal(err)
	}
	joined, err := c.Text(0)
	if err != nil || joined != "Once upon a time" {
		t.Errorf("%q %v", joined, err)
	}
	last := StopNone
	for generation.Next(context.Background()) {
		texts := generation.Step().Texts
		if len(texts) != 1 {
			t.Fatal(texts)
		}
		joined += texts[0].Text
		last = texts[0].StopReason
		if now, err := c.Text(0); err != nil || now != joined {
			t.Errorf("%q %q %v", joined, now, err)
		}
	}
	if joined != text || last != StopString {
		t.Errorf("%q %q %v", joined, text, last)
	}
	for _, wrong := range []string{"", "a\x00b"} {
		params := params
		params.StopStrings = []string{wrong}
		has(t, StatusInvalidArgument, c.Generate(context.Background(), prompts, params))
	}
	// C would take what is before the NUL.
	for _, rule := range []Constraints{{Regex: "a*\x00b"}, {JSONSchema: "{}\x00"}} {
		params := params
		params.Constraints = []Constraints{rule}
		has(t, StatusInvalidArgument, c.Generate(context.Background(), prompts, params))
	}
	_, err = Open(path+"\x00", ModelOptions{})
	has(t, StatusInvalidArgument, err)
	_, err = EstimateMemory(path+"\x00", ModelOptions{}, SessionOptions{})
	has(t, StatusInvalidArgument, err)
	_, err = Open(path, ModelOptions{Device: "cpu\x00"})
	has(t, StatusInvalidArgument, err)
	_, err = model.Metadata("general.architecture\x00")
	has(t, StatusInvalidArgument, err)
	params.MaxTokens = -1
	has(t, StatusInvalidArgument, c.Generate(context.Background(), prompts, params))
}

func TestGenerationAtOnceAndByStep(t *testing.T) {
	model := openModel(t)
	words, err := model.Tokenize("Once upon")
	if err != nil {
		t.Fatal(err)
	}
	prompts := []Prompt{{Tokens: words}, {Tokens: words[:1], Positions: []uint32{31}}}
	c := newSession(t, model, small)
	if err := c.Generate(context.Background(), prompts, few()); err != nil {
		t.Fatal(err)
	}
	once, err := c.Tokens(1)
	if err != nil || len(once) != 32 || once[31] != words[0] {
		t.Error(once, err)
	}
	if text, err := c.Text(0); err != nil || !strings.HasPrefix(text, "Once upon") {
		t.Error(text, err)
	}

	generation, err := c.Begin(context.Background(), prompts, few())
	if err != nil {
		t.Fatal(err)
	}
	written, steps := 0, 0
	for generation.Next(context.Background()) {
		step := generation.Step()
		if step.Index != steps || step.Total <= step.Index {
			t.Error(step)
		}
		steps++
		written += len(step.Updates)
	}
	if generation.Err() != nil || written != 64-len(words)-1 {
		t.Error(generation.Err(), written)
	}
	if stepped, _ := c.Tokens(1); !reflect.DeepEqual(stepped, once) {
		t.Error(stepped, once)
	}
}

func TestBadGenerations(t *testing.T) {
	model := openModel(t)
	c := newSession(t, model, small)
	for _, prompts := range [][]Prompt{
		nil, make([]Prompt, 3),
		{{Tokens: []uint32{4000000000}}},
		{{Tokens: []uint32{1}, Positions: []uint32{1, 2}}},
		{{Tokens: []uint32{1, 2}, Positions: []uint32{3, 3}}},
	} {
		_, err := c.Begin(context.Background(), prompts, few())
		has(t, StatusInvalidArgument, err)
	}
	params := few()
	params.Steps = -1
	_, err := c.Begin(context.Background(), make([]Prompt, 1), params)
	has(t, StatusInvalidArgument, err)
	if _, err := c.Begin(context.Background(), make([]Prompt, 1), Params{}); err == nil || !strings.Contains(err.Error(), "DefaultParams") {
		t.Error("parameters without defaults:", err)
	}
	_, err = NewSession(model, SessionOptions{Length: -1})
	has(t, StatusInvalidArgument, err)
	_, err = c.Text(5)
	has(t, StatusInvalidArgument, err)
	c.Close()
	if _, err := c.Text(0); err != ErrClosed {
		t.Error(err)
	}
}

func TestCancellation(t *testing.T) {
	model := openModel(t)
	// Token by token, sixteen texts: hundreds of milliseconds on any machine.
	c := newSession(t, model, SessionOptions{Sequences: 16, Threads: 1})
	long := DefaultParams()
	long.Steps, long.Alpha0 = 100000, 0
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := c.Generate(ctx, make([]Prompt, 16), long); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Error("cancelled only after", took)
	}
	if err := c.Generate(ctx, make([]Prompt, 16), long); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	short := few()
	short.Length = 16
	if err := c.Generate(context.Background(), make([]Prompt, 1), short); err != nil {
		t.Error(err) // the context is usable again
	}
	// Evaluating again and again, until its time is over.
	if _, err := c.Begin(context.Background(), make([]Prompt, 1), few()); err != nil {
		t.Fatal(err)
	}
	order, err := c.Order(0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	for began = time.Now(); err == nil && time.Since(began) < 20*time.Second; {
		_, err = c.Logits(ctx, 0, order)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestReadingIsNeverBusyAndSecondComputingCallsAre(t *testing.T) {
	c := newSession(t, openModel(t), SessionOptions{Sequences: 16, Threads: 1})
	params := DefaultParams()
	params.Alpha0 = 0 // token by token
	generation, err := c.Begin(context.Background(), make([]Prompt, 16), params)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	var steps, refused atomic.Int64
	go func() {
		for {
			if generation.Next(ctx) {
				steps.Add(1)
			} else if errors.Is(generation.Err(), ErrBusy) {
				refused.Add(1)
			} else {
				ended <- generation.Err()
				return
			}
		}
	}()
	deadline := time.Now().Add(30 * time.Second)
	// Another call that computes: one of the two is busy.
	busy := false
	for !busy && time.Now().Before(deadline) {
		_, err := c.Save()
		busy = errors.Is(err, ErrBusy)
	}
	// Reading makes none busy, from a step on that began after the last such call.
	for before := steps.Load(); steps.Load() < before+2 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	refusedBefore := refused.Load()
	for before := steps.Load(); steps.Load() < before+2 && time.Now().Before(deadline); {
		for i := 0; i < 100; i++ {
			_, errText := c.Text(0)
			_, errTokens := c.Tokens(15)
			_, errReason := c.StopReason(1)
			if errText != nil || errTokens != nil || errReason != nil {
				t.Fatal(errText, errTokens, errReason)
			}
		}
	}
	if !busy || refused.Load() != refusedBefore || time.Now().After(deadline) {
		t.Error(busy, refused.Load(), refusedBefore)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Text(0); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// What was written before is still there, and another generation can begin.
func TestEndedContextBeginsNothing(t *testing.T) {
	c := newSession(t, openModel(t), small)
	if err := c.Generate(context.Background(), make([]Prompt, 1), few()); err != nil {
		t.Fatal(err)
	}
	before, _ := c.Tokens(0)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	other := few()
	other.Seed = 8
	_, begin := c.Begin(ctx, make([]Prompt, 1), other)
	_, extend := c.Extend(ctx, make([]Prompt, 1), other)
	_, add := c.AddSequence(ctx, Prompt{}, other)
	for _, err := range []error{begin, extend, add, c.Generate(ctx, make([]Prompt, 1), other)} {
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if after, err := c.Tokens(0); err != nil || !reflect.DeepEqual(after, before) {
		t.Error(after, err)
	}
	if err := c.Generate(context.Background(), make([]Prompt, 1), few()); err != nil {
		t.Error(err)
	}
}

func TestOneModelInManyGoroutines(t *testing.T) {
	model := openModel(t)
	texts := make([]string, 4)
	var group sync.WaitGroup
	for i := range texts {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			c, err := NewSession(model, small)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if err := c.Generate(context.Background(), make([]Prompt, 1), few()); err != nil {
				t.Error(err)
			}
			texts[i], _ = c.Text(0)
		}(i)
	}
	group.Wait()
	for _, text := range texts {
		if text != texts[0] {
			t.Errorf("%q is not %q", text, texts[0])
		}
	}
}

func TestContextKeepsItsModel(t *testing.T) {
	model := openModel(t)
	c := newSession(t, model, small)
	model.Close()
	if err := c.Generate(context.Background(), make([]Prompt, 1), few()); err != nil {
		t.Error(err)
	}
}

func TestFinalizers(t *testing.T) {
	freed := make(chan bool)
	func() {
		model, err := Open(path, ModelOptions{})
		if err != nil {
			t.Fatal(err)
		}
		runtime.SetFinalizer(model, nil) // replaced by one that reports
		runtime.SetFinalizer(model, func(m *Model) { m.Close(); freed <- true })
	}()
	collected(t, freed)
}

// collected lets the garbage collector run until something was freed.
func collected(t *testing.T, freed <-chan bool) {
	t.Helper()
	for i := 0; i < 50; i++ {
		runtime.GC()
		select {
		case <-freed:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Error("never freed")
}

func TestLog(t *testing.T) {
	model := openModel(t)
	one := newSession(t, model, small)
	if err := one.Generate(context.Background(), make([]Prompt, 1), few()); err != nil {
		t.Fatal(err)
	}
	state, err := one.Save()
	if err != nil {
		t.Fatal(err)
	}
	precise := small
	precise.KVType = KVF32
	two := newSession(t, model, precise)
	restored := func() {
		if err := two.Restore(state); err != nil {
			t.Fatal(err)
		}
	}

	type entry struct {
		level   Level
		message string
	}
	var guard sync.Mutex
	var heard []entry
	SetLog(func(level Level, message string) {
		guard.Lock()
		defer guard.Unlock()
		heard = append(heard, entry{level, message})
	})
	restored()
	SetLog(nil)
	restored()
	guard.Lock()
	defer guard.Unlock()
	want := entry{LevelInfo, "saved state: keys and values (F16) are computed again for this context (F32)"}
	if !reflect.DeepEqual(heard, []entry{want}) {
		t.Errorf("%q", heard)
	}
}

func TestDescription(t *testing.T) {
	model := openModel(t)
	keys, err := model.MetadataKeys()
	if err != nil || len(keys) < 4 {
		t.Fatal(keys, err)
	}
	for _, key := range keys {
		if value, err := model.Metadata(key); err != nil || value == "" {
			t.Error(key, err)
		}
	}
	if value, err := model.Metadata("general.architecture"); value != "esolm" {
		t.Error(value, err)
	}
	_, err = model.Metadata("no.such.key")
	has(t, StatusInvalidArgument, err)

	tokens, err := model.Tokenize("Zoë, 5 €")
	if err != nil {
		t.Fatal(err)
	}
	var bytes []byte
	for _, token := range tokens {
		part, err := model.TokenBytes(token)
		if err != nil {
			t.Error(err)
		}
		bytes = append(bytes, part...)
	}
	if model.TokenIsSpecial(tokens[0]) || model.TokenIsEnd(tokens[0]) {
		t.Error(tokens)
	}
	if info, err := model.Info(); err != nil || !model.TokenIsEnd(*info.EOSToken) || !model.TokenIsSpecial(info.MaskToken) ||
		info.PrependedToken != nil || *info.BOSToken != *info.EOSToken {
		t.Error(info, err)
	}
	if string(bytes) != "Zoë, 5 €" {
		t.Errorf("%q", bytes)
	}

	use, err := EstimateMemory(path, ModelOptions{Device: "cpu"}, small)
	if err != nil || use.KVCache == 0 || use.KVCache+use.Compute > use.Arena {
		t.Error(use, err)
	}
	_, err = EstimateMemory("/nowhere.gguf", ModelOptions{}, small)
	has(t, StatusIO, err)
}

func TestReset(t *testing.T) {
	c := newSession(t, openModel(t), small)
	if err := c.Generate(context.Background(), []Prompt{{}}, few()); err != nil {
		t.Fatal(err)
	}
	if err := c.Reset(); err != nil {
		t.Error(err)
	}
	_, err := c.Text(0)
	has(t, StatusInvalidArgument, err)
}

func TestRequests(t *testing.T) {
	model := openModel(t)
	c := newSession(t, model, small)
	prompt, length, err := model.Template("Once{{mask 9}} end.")
	if err != nil || length != len(prompt.Tokens)+9 {
		t.Fatal(prompt, length, err)
	}
	_, _, err = model.Template("{{mask")
	has(t, StatusInvalidArgument, err)

	params := few()
	params.Length, params.LogProbs, params.Order = length, true, OrderLeftToRight
	hole := prompt.Positions[len(prompt.Positions)-1] - 5
	params.Constraints = []Constraints{{Bias: map[uint32]float32{30: 1000}, Allowed: map[uint32][]uint32{hole: {40}}}}
	generation, err := c.Begin(context.Background(), []Prompt{prompt}, params)
	if err != nil {
		t.Fatal(err)
	}
	for generation.Next(context.Background()) {
		if step := generation.Step(); len(step.LogProbs) != len(step.Updates) {
			t.Error(step)
		}
	}
	tokens, err := c.Tokens(0)
	if err != nil || generation.Err() != nil || tokens[hole] != 40 || tokens[hole-1] != 30 {
		t.Error(tokens, err, generation.Err())
	}
	params.Constraints[0].Banned = []uint32{1 << 30}
	_, err = c.Begin(context.Background(), []Prompt{prompt}, params)
	has(t, StatusInvalidArgument, err)
	params.Constraints, params.Schedule = nil, []uint32{4, 0}
	_, err = c.Begin(context.Background(), []Prompt{prompt}, params)
	has(t, StatusInvalidArgument, err)
}
