package esolm

/*
#include <esolm.h>
#include <stdlib.h>
*/
import "C"

import (
	"runtime"
	"sync"
	"unsafe"
)

// Pool holds threads that several contexts share (SessionOptions.Pool). They help one context at a time; one that finds them
// in use computes alone. The fields run and run_user_data of C are left out: a goroutine has no thread of its own to lend.
type Pool struct {
	guard sync.RWMutex
	c     *C.esolm_pool
}

// PoolOptions are a pool's parameters.
type PoolOptions struct {
	Threads int   // threads, that of the computing context included (0: one per core that the process may use)
	CPUs    []int // the processors that the pool's own threads may run on (nil: those of the process); Linux only
	Nice    int   // added to the nice value of the pool's own threads (0); Linux only
	Poll    *int  // how long a thread waits for work before it sleeps, 0 to 100 (nil: 50, about a millisecond)
}

// NewPool starts the threads.
func NewPool(options PoolOptions) (*Pool, error) {
	var params C.esolm_pool_params
	C.esolm_pool_params_init(&params, C.sizeof_esolm_pool_params)
	params.threads = C.size_t(options.Threads)
	params.nice = C.int32_t(options.Nice)
	if options.Poll != nil {
		params.poll = C.uint32_t(*options.Poll)
	}
	if n := len(options.CPUs); n > 0 {
		cpus := (*C.size_t)(C.calloc(C.size_t(n), C.sizeof_size_t))
		defer C.free(unsafe.Pointer(cpus))
		for i, cpu := range options.CPUs {
			unsafe.Slice(cpus, n)[i] = C.size_t(cpu)
		}
		params.cpus, params.n_cpus = cpus, C.size_t(n)
	}
	pool := &Pool{}
	if err := call(func() C.esolm_status { return C.esolm_pool_new(&params, &pool.c) }); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(pool, (*Pool).Close)
	return pool, nil
}

// Threads returns the number of threads, that of the computing context included.
func (p *Pool) Threads() int {
	p.guard.RLock()
	defer p.guard.RUnlock()
	return int(C.esolm_pool_threads(p.c))
}

// Close frees the threads once no Session uses them. A second Close does nothing.
func (p *Pool) Close() error {
	p.guard.Lock()
	defer p.guard.Unlock()
	runtime.SetFinalizer(p, nil)
	C.esolm_pool_free(p.c)
	p.c = nil
	return nil
}

// lend sets the pool of params, and keeps it from being closed until the result is called.
func (p *Pool) lend(params *C.esolm_context_params) (release func(), err error) {
	if p == nil {
		return func() {}, nil
	}
	p.guard.RLock()
	if p.c == nil {
		p.guard.RUnlock()
		return nil, ErrClosed
	}
	params.pool = p.c
	return p.guard.RUnlock, nil
}
