package main

import (
	"context"
	"sync"

	"esolm"
)

// job is a text that a client wants.
type job struct {
	ctx    context.Context // ends when the client hangs up
	prompt esolm.Prompt
	params esolm.Params
	parts  chan part // has room for all, so that a slow client never stops the others
}

// part is what there is to tell of a job: that it has begun, what became text in a step, or how it ended.
type part struct {
	text   string
	tokens int // written in the step
	cached int // at the beginning: tokens of the prompt that need not be computed
	reason esolm.StopReason
	err    error
}

func (p part) last() bool { return p.err != nil || p.reason != esolm.StopNone }

// engine computes the texts of all jobs, a step of each in one pass of the network.
type engine struct {
	context   *esolm.Session
	sequences int
	length    int
	waiting   queue
	running   map[uint32]*job
	done      chan struct{} // closed when no job is taken any more
}

// queue has the jobs that wait, the oldest first. Any goroutine may use it.
type queue struct {
	mutex sync.Mutex
	jobs  []*job
	limit int
	came  chan struct{} // has an entry if a job may have come since the last look
}

// add puts a job at the end, in the place of those whose clients have hung up. It returns false if there is no place.
func (q *queue) add(j *job) bool {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	there := q.jobs[:0]
	for _, waiting := range q.jobs {
		if waiting.ctx.Err() == nil {
			there = append(there, waiting)
		}
	}
	q.jobs = there
	if len(q.jobs) >= q.limit {
		return false
	}
	q.jobs = append(q.jobs, j)
	select {
	case q.came <- struct{}{}:
	default:
	}
	return true
}

// take removes the first job. It returns nil if there is none.
func (q *queue) take() *job {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if len(q.jobs) == 0 {
		return nil
	}
	j := q.jobs[0]
	q.jobs = append(q.jobs[:0], q.jobs[1:]...)
	return j
}

func newEngine(model *esolm.Model, options esolm.SessionOptions, limit int) (*engine, error) {
	c, err := esolm.NewSession(model, options)
	if err != nil {
		return nil, err
	}
	info, err := model.Info()
	if err != nil {
		return nil, err
	}
	return &engine{
		context: c, sequences: options.Sequences, length: info.ContextLength, running: map[uint32]*job{},
		waiting: queue{limit: limit, came: make(chan struct{}, 1)}, done: make(chan struct{}),
	}, nil
}

// newJob returns a job for submit.
func (e *engine) newJob(ctx context.Context, prompt esolm.Prompt, params esolm.Params) *job {
	params.StepText = true
	// The beginning, at most a part for each token, and the end.
	return &job{ctx, prompt, params, make(chan part, e.length+2)}
}

// submit queues a job. It returns false if too many are waiting.
func (e *engine) submit(j *job) bool { return e.waiting.add(j) }

// run computes until ctx ends. Then all jobs end as cancelled.
func (e *engine) run(ctx context.Context) {
	for e.join(ctx) {
		for number, j := range e.running {
			if j.ctx.Err() != nil {
				e.leave(number, part{reason: esolm.StopCancelled})
			}
		}
		e.step(ctx)
	}
	for number := range e.running {
		e.leave(number, part{reason: esolm.StopCancelled})
	}
	close(e.done)
}

// join lets jobs that wait join the others, and waits for one if there are none. It returns false if ctx has ended.
func (e *engine) join(ctx context.Context) bool {
	for ctx.Err() == nil && len(e.running) < e.sequences {
		if j := e.waiting.take(); j != nil {
			e.add(j)
			continue
		}
		if len(e.running) > 0 {
			return true
		}
		select {
		case <-e.waiting.came:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

func (e *engine) add(j *job) {
	if j.ctx.Err() != nil {
		return
	}
	number, err := e.context.AddSequence(j.ctx, j.prompt, j.params)
	if err != nil {
		j.parts <- part{err: err}
		return
	}
	e.running[number] = j
	cached, err := e.context.CachedTokens(number)
	if err != nil {
		e.leave(number, part{err: err})
		return
	}
	j.parts <- part{cached: cached}
}

// leave ends a job.
func (e *engine) leave(number uint32, last part) {
	e.running[number].parts <- last
	delete(e.running, number)
	if err := e.context.RemoveSequence(number); err != nil {
		panic(err) // the sequence is there
	}
}

// step runs a step of all sequences. Those that have failed, or are finished, leave.
func (e *engine) step(ctx context.Context) {
	step, err := e.context.Step(ctx)
	if ctx.Err() != nil {
		return
	}
	if step == nil {
		step = &esolm.Step{}
	}
	written := map[uint32]int{}
	for _, update := range step.Updates {
		written[update.Sequence]++
	}
	for number, j := range e.running {
		news := part{tokens: written[number]}
		if int(number) < len(step.Texts) {
			news.text, news.reason = step.Texts[number].Text, step.Texts[number].StopReason
		}
		if err == nil && news.tokens == 0 && news.reason == esolm.StopNone {
			// Its prompt is being fed, or had the context's length, so that nothing is to be written.
			news.reason, news.err = e.context.StopReason(number)
		}
		if err != nil {
			if reason, asked := e.context.StopReason(number); asked != nil || reason != esolm.StopNone {
				news.err = err
			}
		}
		switch {
		case news.last():
			e.leave(number, news)
		case news.tokens > 0:
			j.parts <- news
		}
	}
}
