//! A device that has been started.

use std::ffi::c_void;
use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::buffer::in_host_memory;
use super::device::Device;
use super::graph::CompleteGraph;
#[cfg(feature = "convert")]
use super::graph::nodes;
use crate::error::{Error, Result};
use crate::log::{LogLevel, log};
use crate::memory::start_scoped;

/// Most threads that ggml manages.
pub(crate) const MAX_THREADS: usize = 512;

/// A device with what it needs to run graphs: its own threads on the CPU, a stream on a GPU.
#[derive(Debug)]
pub(crate) struct Backend {
    device: Device,
    threads: usize,
    /// Threads that were started.
    started: usize,
    executor: Executor,
    /// The process that it was started in: a child of fork() has neither its threads nor its device.
    process: u32,
}

#[derive(Debug)]
enum Executor {
    /// The CPU is used through ggml-cpu's own functions rather than as a backend, so that its working memory is in the
    /// arena and a cancel token takes effect inside a graph.
    Cpu(NonNull<ggml_sys::ggml_threadpool>),
    Other(NonNull<ggml_sys::ggml_backend>),
}

// SAFETY: a thread pool and a backend may be used from any thread, one at a time; `&mut self` ensures that.
unsafe impl Send for Backend {}

impl Backend {
    /// Starts `device`. `threads`, 1 to [`MAX_THREADS`], is for the CPU: its threads wait, without spinning for long,
    /// until the backend is dropped. If the system does not give so many, there are fewer, which is logged.
    ///
    /// # Errors
    /// [`Error::Device`] if the device does not start.
    pub(crate) fn new(device: Device, threads: usize) -> Result<Self> {
        let failed = || Error::Device(format!("device {} could not be started", device.name()));
        let (threads, executor) = if in_host_memory(device) {
            let threads = startable(threads);
            // SAFETY: the parameters are ggml's own defaults for this number of threads.
            let pool = unsafe {
                let mut params = ggml_sys::ggml_threadpool_params_default(threads as i32);
                ggml_sys::ggml_threadpool_new(&mut params)
            };
            (threads, Executor::Cpu(NonNull::new(pool).ok_or_else(failed)?))
        } else {
            // SAFETY: the device is valid; no parameters are given.
            let backend = unsafe { ggml_sys::ggml_backend_dev_init(device.as_ptr(), std::ptr::null()) };
            (threads, Executor::Other(NonNull::new(backend).ok_or_else(failed)?))
        };
        Ok(Self { device, threads, started: threads, executor, process: process::id() })
    }

    /// The device that was started.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// Threads that compute.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Threads that were started.
    pub(crate) fn most_threads(&self) -> usize {
        self.started
    }

    /// Has this many threads compute, as many as there are at most.
    pub(crate) fn set_threads(&mut self, threads: usize) {
        self.threads = threads.clamp(1, self.started);
    }

    /// Writes `values` to `tensor`, before the next graph is computed at the latest. They must stay until it has been.
    pub(super) fn upload(&mut self, tensor: NonNull<ggml_sys::ggml_tensor>, values: &[i32]) -> Result<()> {
        // SAFETY: the tensor is valid.
        let room = unsafe { ggml_sys::ggml_nbytes(tensor.as_ptr()) };
        if size_of_val(values) > room {
            return Err(Error::internal("more input than a graph has room for"));
        }
        let (from, len) = (values.as_ptr().cast(), size_of_val(values));
        match self.executor {
            // SAFETY: the tensor has memory for these values.
            Executor::Cpu(_) => unsafe {
                ggml_sys::ggml_backend_tensor_set(tensor.as_ptr(), from, 0, len);
            },
            // SAFETY: as above; the caller keeps the values.
            Executor::Other(backend) => unsafe {
                ggml_sys::ggml_backend_tensor_set_async(backend.as_ptr(), tensor.as_ptr(), from, 0, len);
            },
        }
        Ok(())
    }

    /// Computes `graph`, with `work` (address and length) as the CPU's working memory. `cancel` is checked between
    /// operations on the CPU, between parts of the graph on other devices.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Device`] if the device fails.
    pub(super) fn compute(
        &mut self,
        graph: &CompleteGraph,
        work: (NonNull<u8>, usize),
        cancel: &AtomicBool,
    ) -> Result<()> {
        for &part in &graph.parts {
            #[cfg(feature = "convert")]
            if super::observe::is_on() {
                self.compute_observed(part, work, cancel)?;
                continue;
            }
            self.compute_part(part, work, cancel)?;
        }
        Ok(())
    }

    /// Computes `part` in pieces that end before each product with an observed matrix, so that its input can be read.
    #[cfg(feature = "convert")]
    fn compute_observed(
        &mut self,
        part: NonNull<ggml_sys::ggml_cgraph>,
        work: (NonNull<u8>, usize),
        cancel: &AtomicBool,
    ) -> Result<()> {
        let count = nodes(part).count();
        let mut table = super::table::TensorTable::allocate(0, (1, count))?;
        let mut all = nodes(part).peekable();
        while all.peek().is_some() {
            // SAFETY: the table holds no tensors, and the last piece is used no more.
            unsafe { table.empty(0) };
            let piece = table.new_graph(count)?;
            let mut length = 0;
            while let Some(&node) = all.peek() {
                // SAFETY: the node belongs to a complete graph.
                let watched = unsafe { super::observe::is_watched(node) };
                if watched && length > 0 {
                    break;
                }
                if watched {
                    // SAFETY: everything before this node has been computed.
                    unsafe { super::observe::look_at(node)? };
                }
                // SAFETY: the piece has room for every node, and what they need has memory.
                unsafe { ggml_sys::ggml_graph_add_node(piece.as_ptr(), node) };
                length += 1;
                all.next();
            }
            self.compute_part(piece, work, cancel)?;
        }
        Ok(())
    }

    fn compute_part(
        &mut self,
        part: NonNull<ggml_sys::ggml_cgraph>,
        work: (NonNull<u8>, usize),
        cancel: &AtomicBool,
    ) -> Result<()> {
        extern "C" fn cancelled(flag: *mut c_void) -> bool {
            // SAFETY: `flag` is the AtomicBool of the call below, alive until it returns.
            unsafe { &*flag.cast::<AtomicBool>() }.load(Ordering::Relaxed)
        }
        if process::id() != self.process {
            return Err(Error::made_before_fork());
        }
        let status = match self.executor {
            Executor::Cpu(pool) => {
                // SAFETY: the graph is complete, and the pool has that many threads.
                let mut plan =
                    unsafe { ggml_sys::ggml_graph_plan(part.as_ptr(), self.threads as i32, pool.as_ptr()) };
                if plan.work_size > work.1 {
                    let (needed, given) = (plan.work_size, work.1);
                    return Err(Error::internal(format!(
                        "a graph needs {needed} bytes of work, not {given}"
                    )));
                }
                plan.work_data = work.0.as_ptr();
                plan.abort_callback = Some(cancelled);
                plan.abort_callback_data = std::ptr::from_ref(cancel).cast_mut().cast();
                // SAFETY: every tensor of the graph has memory, `work` is large enough and used by no one else,
                // and the plan outlives the call.
                unsafe { ggml_sys::ggml_graph_compute(part.as_ptr(), &mut plan) }
            }
            Executor::Other(_) if cancel.load(Ordering::Relaxed) => return Err(Error::Cancelled),
            // SAFETY: every tensor of the graph has memory on this device. The call returns when all is computed.
            Executor::Other(backend) => unsafe {
                ggml_sys::ggml_backend_graph_compute(backend.as_ptr(), part.as_ptr())
            },
        };
        match status {
            ggml_sys::GGML_STATUS_SUCCESS => Ok(()),
            ggml_sys::GGML_STATUS_ABORTED => Err(Error::Cancelled),
            ggml_sys::GGML_STATUS_ALLOC_FAILED => {
                Err(Error::OutOfMemory(format!("on device {}", self.device.name())))
            }
            other => Err(Error::Device(format!("device {} failed (status {other})", self.device.name()))),
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if process::id() != self.process {
            // Freeing would wait for threads that are not there.
            return;
        }
        match self.executor {
            // SAFETY: no graph runs, since computing borrows the backend.
            Executor::Cpu(pool) => unsafe { ggml_sys::ggml_threadpool_free(pool.as_ptr()) },
            // SAFETY: no graph runs, since computing borrows the backend.
            Executor::Other(backend) => unsafe { ggml_sys::ggml_backend_free(backend.as_ptr()) },
        }
    }
}

/// How many of `threads` threads, the caller included, the system lets run at once. ggml ends the process if one of its
/// threads does not start.
fn startable(threads: usize) -> usize {
    let hold = Mutex::new(());
    let started = thread::scope(|scope| {
        let held = hold.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = || drop(hold.lock());
        let waiting: Vec<_> = (1..threads).map_while(|_| start_scoped(scope, None, wait).ok()).collect();
        let started = waiting.len() + 1;
        drop(held);
        // Until they are joined, threads count against the system's limits.
        waiting.into_iter().for_each(|thread| drop(thread.join()));
        started
    });
    if started < threads {
        log(LogLevel::Warn, &format!("only {started} of {threads} threads could be started"));
    }
    started
}

/// Bytes of working memory that the CPU needs for `graph` with `threads` threads.
pub(super) fn work_size(graph: &CompleteGraph, threads: usize) -> usize {
    let of_part = |part: &NonNull<ggml_sys::ggml_cgraph>| {
        // SAFETY: the graph is complete; planning reads shapes only, and needs no threads.
        unsafe { ggml_sys::ggml_graph_plan(part.as_ptr(), threads as i32, std::ptr::null_mut()) }.work_size
    };
    graph.parts.iter().map(of_part).max().unwrap_or(0)
}
