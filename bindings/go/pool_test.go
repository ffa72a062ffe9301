package esolm

import (
	"context"
	"runtime"
	"testing"
)

// Contexts that share threads, one after the other and with fewer threads, write the same text as one with its own.
func TestPoolIsSharedByContexts(t *testing.T) {
	model := openModel(t)
	none := 0
	options := PoolOptions{Threads: 2, Poll: &none}
	if runtime.GOOS == "linux" {
		options.CPUs, options.Nice = []int{0}, 1
	}
	pool, err := NewPool(options)
	if err != nil {
		t.Fatal(err)
	}
	if pool.Threads() != 2 {
		t.Fatalf("%d threads", pool.Threads())
	}
	params := DefaultParams()
	params.Seed, params.Steps = 3, 4
	write := func(c *Session) string {
		if err := c.Generate(context.Background(), []Prompt{{}}, params); err != nil {
			t.Fatal(err)
		}
		text, err := c.Text(0)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	own := write(newSession(t, model, SessionOptions{Length: 32, Threads: 1}))
	shared := SessionOptions{Length: 32, Pool: pool}
	first, second := newSession(t, model, shared), newSession(t, model, shared)
	if threads, err := first.Threads(); err != nil || threads != 2 {
		t.Fatalf("%d threads, %v", threads, err)
	}
	if write(first) != own || write(second) != own {
		t.Fatal("the text depends on the threads")
	}
	if err := second.SetThreads(1); err != nil {
		t.Fatal(err)
	}
	if err := second.SetThreads(3); err == nil {
		t.Fatal("more threads than the context was made for")
	}
	pool.Close()
	if write(first) != own || write(second) != own {
		t.Fatal("the text depends on the threads")
	}
	if _, err := NewSession(model, shared); err != ErrClosed {
		t.Fatalf("a closed pool: %v", err)
	}
	if _, err := NewPool(PoolOptions{Threads: 2, CPUs: []int{900}}); err == nil {
		t.Fatal("no such processor")
	}
}
