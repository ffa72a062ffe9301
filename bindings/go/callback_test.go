package esolm

import (
	"context"
	"errors"
	"math"
	"os"
	"reflect"
	"runtime"
	"testing"
)

var errEnough = errors.New("enough")

func TestProgress(t *testing.T) {
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	opening := map[string]func(ModelOptions) (*Model, error){
		"mapped":   func(options ModelOptions) (*Model, error) { return Open(path, options) },
		"copied":   func(options ModelOptions) (*Model, error) { options.Copy = true; return Open(path, options) },
		"repacked": func(options ModelOptions) (*Model, error) { options.Repack = true; return Open(path, options) },
		"bytes":    func(options ModelOptions) (*Model, error) { return OpenBytes(file, options) },
	}
	for name, open := range opening {
		reports, last := 0, 0.0
		model, err := open(ModelOptions{Progress: func(fraction float64) error {
			if fraction < last || fraction > 1 {
				t.Error(name, fraction, "after", last)
			}
			last = fraction
			reports++
			return nil
		}})
		if err != nil || reports == 0 || last != 1 {
			t.Fatal(name, err, reports, last)
		}
		model.Close()
		// Cancelled at each of the reports.
		for stop := 1; stop <= reports; stop++ {
			seen := 0
			model, err := open(ModelOptions{Progress: func(float64) error {
				if seen++; seen == stop {
					return errEnough
				}
				return nil
			}})
			if model != nil || err != errEnough || seen != stop {
				t.Error(name, model, err, seen, "instead of", stop)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Open(path, ModelOptions{Progress: func(float64) error { return ctx.Err() }})
	if err != context.Canceled {
		t.Error(err)
	}
}

// panics returns the value that f panics with.
func panics(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func TestPanicsPassThroughC(t *testing.T) {
	if value := panics(func() { Open(path, ModelOptions{Progress: func(float64) error { panic("load") }}) }); value != "load" {
		t.Error(value)
	}
	c := newSession(t, openModel(t), small)
	params := few()
	params.Logits = func(LogitsRow, []float32) error { panic("draw") }
	if value := panics(func() { c.Generate(context.Background(), make([]Prompt, 1), params) }); value != "draw" {
		t.Error(value)
	}
	scoring := DefaultScoreParams()
	scoring.Progress = func(float64) error { panic("score") }
	if value := panics(func() { c.ScoreText(context.Background(), []uint32{5, 6}, scoring) }); value != "score" {
		t.Error(value)
	}
	if err := c.Generate(context.Background(), make([]Prompt, 1), few()); err != nil {
		t.Error("not usable after a panic:", err)
	}
}

func written(t *testing.T, c *Session, params Params) []uint32 {
	t.Helper()
	if err := c.Generate(context.Background(), make([]Prompt, 1), params); err != nil {
		t.Fatal(err)
	}
	tokens, err := c.Tokens(0)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func TestLogits(t *testing.T) {
	model := openModel(t)
	info, err := model.Info()
	if err != nil {
		t.Fatal(err)
	}
	c := newSession(t, model, small)
	plain := written(t, c, few())

	// A function that only reads changes nothing.
	seen := map[uint32]bool{}
	slots := map[uint32]bool{}
	params := few()
	params.Logits = func(row LogitsRow, logits []float32) error {
		if len(logits) != info.VocabSize || len(row.ModelLogits) != info.VocabSize || row.Sequence != 0 {
			t.Error(len(logits), len(row.ModelLogits), row.Sequence)
		}
		if !math.IsInf(float64(logits[info.MaskToken]), -1) || logits[5] != row.ModelLogits[5] {
			t.Error(logits[info.MaskToken], logits[5], row.ModelLogits[5])
		}
		seen[row.Position], slots[row.Slot] = true, true
		return nil
	}
	if tokens := written(t, c, params); !reflect.DeepEqual(tokens, plain) || len(seen) != 32 || len(slots) != 32 {
		t.Error(tokens, plain, len(seen), len(slots))
	}

	// One that writes does.
	params.Logits = func(row LogitsRow, logits []float32) error {
		for token := range logits {
			if uint32(token) != 30+row.Position%2 {
				logits[token] = float32(math.Inf(-1))
			}
		}
		return nil
	}
	for position, token := range written(t, c, params) {
		if int(token) != 30+position%2 {
			t.Error(position, token)
		}
	}

	// The next generation has no function.
	if tokens := written(t, c, few()); !reflect.DeepEqual(tokens, plain) {
		t.Error(tokens, plain)
	}

	// All tokens excluded; a text that is read; a call on the context in use; an error.
	params.Logits = func(_ LogitsRow, logits []float32) error {
		for token := range logits {
			logits[token] = float32(math.Inf(-1))
		}
		return nil
	}
	has(t, StatusInvalidArgument, c.Generate(context.Background(), make([]Prompt, 1), params))
	params.Logits = func(LogitsRow, []float32) error {
		_, err := c.Text(0)
		return err
	}
	if err := c.Generate(context.Background(), make([]Prompt, 1), params); err != nil {
		t.Error(err)
	}
	params.Logits = func(LogitsRow, []float32) error {
		_, err := c.Save()
		return err
	}
	has(t, StatusBusy, c.Generate(context.Background(), make([]Prompt, 1), params))
	calls := 0
	params.Logits = func(LogitsRow, []float32) error {
		if calls++; calls == 5 {
			return errEnough
		}
		return nil
	}
	if err := c.Generate(context.Background(), make([]Prompt, 1), params); err != errEnough || calls != 5 {
		t.Error(err, calls)
	}

	// A Begin that fails leaves the previous generation and its function in place.
	calls = 10
	generation, err := c.Begin(context.Background(), make([]Prompt, 1), params)
	if err != nil {
		t.Fatal(err)
	}
	bad := few()
	bad.Steps = 1<<20 + 1
	if _, err := c.Begin(context.Background(), make([]Prompt, 1), bad); err == nil {
		t.Error("too many steps")
	}
	for generation.Next(context.Background()) {
	}
	if generation.Err() != nil || calls != 10+32 {
		t.Error(generation.Err(), calls)
	}
}

// What ends a generation lets go of its function.
func TestLogitsGoWithTheirGeneration(t *testing.T) {
	c := newSession(t, openModel(t), small)
	ctx := context.Background()
	written(t, c, few())
	state, err := c.Save()
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func() error{
		"reset":   c.Reset,
		"restore": func() error { return c.Restore(state) },
		"text":    func() error { _, err := c.Score(ctx, []uint32{5, 6}); return err },
		"order":   func() error { _, err := c.ScoreOrder(ctx, []uint32{5, 6}, nil, 0); return err },
		"masked":  func() error { _, err := c.ScoreMasked(ctx, []uint32{5, 6}, nil, 0); return err },
	} {
		freed := make(chan bool, 1)
		func() {
			held := new([64]byte)
			runtime.SetFinalizer(held, func(*[64]byte) { freed <- true })
			params := few()
			params.Logits = func(LogitsRow, []float32) error { held[0]++; return nil }
			if _, err := c.Begin(ctx, make([]Prompt, 1), params); err != nil {
				t.Fatal(name, err)
			}
		}()
		runtime.GC()
		if len(freed) != 0 {
			t.Error(name, "the function is gone before its generation")
		}
		if err := end(); err != nil {
			t.Error(name, err)
		}
		collected(t, freed)
	}
}

// A context whose function refers to it can still be collected.
func TestLogitsHoldNothing(t *testing.T) {
	model := openModel(t)
	freed := make(chan bool, 1)
	func() {
		c, err := NewSession(model, small)
		if err != nil {
			t.Fatal(err)
		}
		params := few()
		params.Logits = func(LogitsRow, []float32) error { runtime.KeepAlive(c); return nil }
		written(t, c, params)
		runtime.SetFinalizer(c.c, nil) // replaced by one that reports
		runtime.SetFinalizer(c.c, func(o *owned) { o.free(); freed <- true })
	}()
	collected(t, freed)
}
