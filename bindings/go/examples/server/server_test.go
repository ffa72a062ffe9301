//go:build !windows

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"esolm"
)

const beginning = "Once upon a time"

func modelPath() string {
	if path := os.Getenv("ESOLM_MODEL"); path != "" {
		return path
	}
	return "../../../../models/stories-q8_0.gguf"
}

// bench is a running server and what belongs to it.
type bench struct {
	model  *esolm.Model
	engine *engine
	url    string
	prompt esolm.Prompt
	stop   func() // as Ctrl-C
}

func start(t *testing.T, sequences, queue int) *bench {
	t.Helper()
	model, err := esolm.Open(modelPath(), esolm.ModelOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEngine(model, esolm.SessionOptions{Sequences: sequences, Threads: 1}, queue)
	if err != nil {
		t.Fatal(err)
	}
	words, err := model.Tokenize(beginning)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := httptest.NewServer(handler(model, e))
	go e.run(ctx)
	t.Cleanup(func() {
		cancel()
		<-e.done
		server.Close()
		e.context.Close()
		model.Close()
	})
	return &bench{model, e, server.URL + "/completion", esolm.Prompt{Tokens: words}, cancel}
}

// alone returns the text that the library writes alone, without the prompt.
func (b *bench) alone(t *testing.T, change func(*esolm.Params)) string {
	t.Helper()
	c, err := esolm.NewSession(b.model, esolm.SessionOptions{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	params := esolm.DefaultParams()
	change(&params)
	if err := c.Generate(context.Background(), []esolm.Prompt{b.prompt}, params); err != nil {
		t.Fatal(err)
	}
	text, err := c.Text(0)
	if err != nil || !strings.HasPrefix(text, beginning) {
		t.Fatal(text, err)
	}
	return strings.TrimPrefix(text, beginning)
}

func (b *bench) post(body string) (*http.Response, error) {
	return http.Post(b.url, "application/json", strings.NewReader(body))
}

// complete asks for a text. With stream, it joins the events.
func (b *bench) complete(body string) (whole completion, events int, err error) {
	response, err := b.post(body)
	if err != nil {
		return whole, 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return whole, 0, fmt.Errorf("status %s", response.Status)
	}
	if response.Header.Get("Content-Type") != "text/event-stream" {
		err = json.NewDecoder(response.Body).Decode(&whole)
		return whole, 0, err
	}
	text := ""
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if lines.Text() == "" {
			continue
		}
		data := strings.TrimPrefix(lines.Text(), "data: ")
		if err := json.Unmarshal([]byte(data), &whole); err != nil {
			return whole, events, fmt.Errorf("%q: %w", data, err)
		}
		text += whole.Content
		events++
	}
	whole.Content = text
	return whole, events, nil
}

// waiting returns how many jobs wait, with those whose clients have left.
func (b *bench) waiting() int {
	b.engine.waiting.mutex.Lock()
	defer b.engine.waiting.mutex.Unlock()
	return len(b.engine.waiting.jobs)
}

// blocked returns a job whose first step ends when release is called.
func (b *bench) blocked(ctx context.Context) (j *job, release func()) {
	gate := make(chan struct{})
	params := esolm.DefaultParams()
	params.MaxTokens, params.IgnoreEOS = 3, true
	params.Logits = func(esolm.LogitsRow, []float32) error { <-gate; return nil }
	return b.engine.newJob(ctx, b.prompt, params), func() { close(gate) }
}

func TestEachClientGetsItsText(t *testing.T) {
	b := start(t, 5, 64)
	var group sync.WaitGroup
	for i := 0; i < 16; i++ {
		want := b.alone(t, func(p *esolm.Params) { p.Seed, p.MaxTokens = uint64(i), 20 })
		group.Add(1)
		go func(i int) {
			defer group.Done()
			body := fmt.Sprintf(`{"prompt": %q, "seed": %d, "max_tokens": 20, "stream": %t}`, beginning, i, i%2 == 0)
			got, events, err := b.complete(body)
			if err != nil || got.Content != want || !got.Stop || got.StopType != "limit" || got.Error != "" {
				t.Errorf("%d: %+v instead of %q: %v", i, got, want, err)
			}
			if got.TokensPredicted != 20 || got.TokensEvaluated != len(b.prompt.Tokens) || (i%2 == 0 && events < 5) {
				t.Error(got, events)
			}
		}(i)
	}
	group.Wait()
	// The beginning has been computed.
	if got, _, err := b.complete(fmt.Sprintf(`{"prompt": %q, "n_predict": 2}`, beginning)); err != nil || got.TokensCached == 0 || got.TokensPredicted != 2 {
		t.Error(got, err)
	}
}

func TestParameters(t *testing.T) {
	b := start(t, 2, 8)
	half := float32(0.5)
	want := b.alone(t, func(p *esolm.Params) { p.Seed, p.MaxTokens, p.Steps, p.Temperature = 5, 20, 4, half })
	got, _, err := b.complete(fmt.Sprintf(`{"prompt": %q, "seed": 5, "max_tokens": 20, "steps": 4, "temperature": 0.5}`, beginning))
	if err != nil || got.Content != want {
		t.Errorf("%+v instead of %q: %v", got, want, err)
	}
	want = b.alone(t, func(p *esolm.Params) { p.Seed = 2 })
	got, _, err = b.complete(fmt.Sprintf(`{"prompt": %q, "seed": 2, "n_predict": -1}`, beginning))
	if err != nil || got.Content != want {
		t.Errorf("%+v instead of %q: %v", got, want, err)
	}
	want = b.alone(t, func(p *esolm.Params) { p.MaxTokens = 20 })
	stop := want[len(want)-8 : len(want)-4]
	got, _, err = b.complete(fmt.Sprintf(`{"prompt": %q, "max_tokens": 20, "stop": [%q], "stream": true}`, beginning, stop))
	if err != nil || !strings.HasPrefix(want, got.Content+stop) || got.StopType != "word" {
		t.Errorf("%+v instead of %q: %v", got, want, err)
	}
}

// Nothing is left to be written, and no step says so.
func TestAPromptOfTheContextsLength(t *testing.T) {
	b := start(t, 1, 1)
	prompt := beginning
	for words := 0; words < b.engine.length; {
		prompt += " king"
		tokens, err := b.model.Tokenize(prompt)
		if err != nil || len(tokens) > b.engine.length {
			t.Fatal(len(tokens), err)
		}
		words = len(tokens)
	}
	whole, _, err := b.complete(fmt.Sprintf(`{"prompt": %q}`, prompt))
	if err != nil || whole.StopType != "limit" || whole.TokensPredicted != 0 || whole.TokensEvaluated != b.engine.length {
		t.Error(whole, err)
	}
}

func TestBadRequests(t *testing.T) {
	b := start(t, 1, 8)
	for body, code := range map[string]int{
		"":                                   400,
		"{":                                  400,
		`{"prompt": 1}`:                      400,
		`{"prompt": "a", "grammar": "x"}`:    400,
		`{"prompt": "a", "seed": -1}`:        400,
		`{"prompt": "a", "max_tokens": -1}`:  400,
		`{"prompt": "a", "steps": 9999999}`:  400,
		`{"prompt": "a", "temperature": -1}`: 400,
		`{"prompt": "a", "stop": [""]}`:      400,
		`{"prompt": "a"} {}`:                 400,
		`{"prompt": "` + strings.Repeat("a b ", 9000):         400, // longer than the model's texts, and not complete
		`{"prompt": "` + strings.Repeat("a b ", 5000) + `"}`:  400,
		`{"prompt": "` + strings.Repeat("a b ", 20000) + `"}`: 413,
	} {
		response, err := b.post(body)
		if err != nil {
			t.Fatal(err)
		}
		var told struct{ Error struct{ Code int } }
		err = json.NewDecoder(response.Body).Decode(&told)
		response.Body.Close()
		if response.StatusCode != code || told.Error.Code != code || err != nil {
			t.Errorf("%.40q: %s, %v, %v", body, response.Status, told, err)
		}
	}
	for target, code := range map[string]int{b.url: 405, b.url + "s": 404} {
		response, err := http.Get(target)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != code {
			t.Error(target, response.Status)
		}
	}
}

// One that fails is told, and the other goes on.
func TestAJobFailsAlone(t *testing.T) {
	b := start(t, 2, 8)
	params := esolm.DefaultParams()
	calls := 0
	params.Logits = func(_ esolm.LogitsRow, logits []float32) error {
		for token := range logits {
			if calls >= 3 {
				logits[token] = float32(math.Inf(-1))
			}
		}
		calls++
		return nil
	}
	failing := b.engine.newJob(context.Background(), b.prompt, params)
	want := b.alone(t, func(p *esolm.Params) { p.MaxTokens = 20 })
	if !b.engine.submit(failing) {
		t.Fatal("the queue is full")
	}
	got, _, err := b.complete(fmt.Sprintf(`{"prompt": %q, "max_tokens": 20}`, beginning))
	if err != nil || got.Content != want {
		t.Error(got, err)
	}
	recorder := httptest.NewRecorder()
	if first, ok := failing.next(b.engine); !ok || first.err != nil {
		t.Error(first)
	}
	stream(recorder, b.engine, failing, completion{})
	events := strings.Split(strings.TrimSpace(recorder.Body.String()), "\n\n")
	if last := events[len(events)-1]; !strings.Contains(last, `"stop":true`) || !strings.Contains(last, "sequence") {
		t.Error(events)
	}
}

func TestTooManyAndThoseWhoLeave(t *testing.T) {
	b := start(t, 1, 1)
	ctx, hangUp := context.WithCancel(context.Background())
	slow, release := b.blocked(ctx)
	if !b.engine.submit(slow) {
		t.Fatal("the queue is full")
	}
	if first, ok := slow.next(b.engine); !ok || first.err != nil {
		t.Fatal(first)
	}
	// One waits, in vain; the next is refused.
	waiting, leave := context.WithCancel(context.Background())
	body := fmt.Sprintf(`{"prompt": %q, "max_tokens": 20}`, beginning)
	gone := make(chan error)
	go func() {
		r, err := http.NewRequestWithContext(waiting, http.MethodPost, b.url, strings.NewReader(body))
		if err == nil {
			_, err = http.DefaultClient.Do(r)
		}
		gone <- err
	}()
	for b.waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	if response, err := b.post(body); err != nil || response.StatusCode != http.StatusServiceUnavailable {
		t.Error(response, err)
	}
	leave()
	if err := <-gone; err == nil {
		t.Error("an answer for one that has left")
	}
	// Its place is free, though nothing else has changed: somebody else may wait there, which the server sees soon after.
	next := b.engine.newJob(context.Background(), b.prompt, esolm.DefaultParams())
	taken := false
	for deadline := time.Now().Add(30 * time.Second); !taken && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		taken = b.engine.submit(next)
	}
	if !taken || b.waiting() != 1 || b.engine.submit(next) {
		t.Error("the place of one that has left", taken, b.waiting())
	}
	// The slow one leaves in its first step.
	hangUp()
	release()
	want := b.alone(t, func(p *esolm.Params) { p.MaxTokens = 20 })
	var got completion
	err := fmt.Errorf("not asked")
	for deadline := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(deadline); {
		got, _, err = b.complete(body) // until the one that waited is out of the queue
	}
	if err != nil || got.Content != want {
		t.Error(got, err)
	}
	written := 0
	for p := range slow.parts {
		if written += p.tokens; p.last() {
			break
		}
	}
	if written > 1 {
		t.Error("the slow one went on for", written)
	}
}

func TestTheEndIsTold(t *testing.T) {
	b := start(t, 1, 4)
	slow, release := b.blocked(context.Background())
	if !b.engine.submit(slow) {
		t.Fatal("the queue is full")
	}
	if first, ok := slow.next(b.engine); !ok || first.err != nil {
		t.Fatal(first)
	}
	b.stop()
	release()
	<-b.engine.done
	if last, ok := slow.next(b.engine); !ok || last.reason != esolm.StopCancelled {
		t.Error(last, ok)
	}
	if response, err := b.post(`{"prompt": "a"}`); err != nil || response.StatusCode != http.StatusServiceUnavailable {
		t.Error(response, err)
	}
}

// The program itself, until Ctrl-C.
func TestProgram(t *testing.T) {
	if err := run([]string{"-port", "0", "/nowhere.gguf"}, io.Discard); err == nil {
		t.Error("no such file")
	}
	if err := run([]string{"-sequences", "0", modelPath()}, io.Discard); err == nil {
		t.Error("no sequences")
	}
	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run([]string{"-port", "0", modelPath()}, out) }()
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "http://127.0.0.1:") {
		t.Fatal(line, err)
	}
	b := bench{url: strings.TrimSpace(line)}
	if got, _, err := b.complete(`{"prompt": "The king", "max_tokens": 5}`); err != nil || got.TokensPredicted == 0 {
		t.Error(got, err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := http.Post(b.url, "application/json", bytes.NewReader(nil)); err == nil {
		t.Error("it is still there")
	}
}
