//! `esolm_pool`: threads that several contexts share.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use super::callback::UserData;
use super::params::SizedStruct;
use super::status::{esolm_status, wrap};
use super::{args, params};
use crate::forward::{ThreadPool, ThreadPoolParams};

/// Threads that several contexts share (esolm_context_params.pool); they help one context at a time, and one that finds
/// them in use computes alone. For ESOLM_KERNELS_OWN. Any thread may use it; freed by esolm_pool_free.
pub struct esolm_pool(pub(super) ThreadPool);

/// Does task i of those that an esolm_run_callback is given. Never unwinds.
pub type esolm_task = Option<unsafe extern "C" fn(task_data: *const c_void, i: usize)>;

/// Calls task(task_data, i) with each i below count, side by side in threads of the caller's as far as these are free and
/// otherwise later, also one after another; returns when all calls have returned. It is called by whichever thread
/// computes on a context of the pool, must not call functions on that context, and must not throw or longjmp.
pub type esolm_run_callback = Option<
    unsafe extern "C" fn(task: esolm_task, task_data: *const c_void, count: usize, user_data: *mut c_void),
>;

/// How to make a pool. Set by esolm_pool_params_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct esolm_pool_params {
    /// sizeof(esolm_pool_params)
    pub struct_size: usize,
    /// Threads, that of the computing context included. 0 (default): one for each processor that the process may use by
    /// its affinity mask and its control group, on Linux and Android of the fast kind if there are several.
    pub threads: usize,
    /// The processors, by the system's numbers, that the pool's own threads may run on. NULL (default): those of the
    /// process. Linux and Android.
    pub cpus: *const usize,
    /// Number of entries in cpus.
    pub n_cpus: usize,
    /// Runs tasks in threads of the caller's, threads at most at a time, which must be set; the pool then has none of its
    /// own. NULL (default): not used. It and run_user_data must stay valid until the pool and its contexts are freed.
    pub run: esolm_run_callback,
    /// Passed to run.
    pub run_user_data: *mut c_void,
    /// Added to the nice value of the pool's own threads, -40 to 40 (default 0). Linux and Android.
    pub nice: i32,
    /// How long a thread of the pool's own waits for work before it sleeps, 0 (not at all) to 100 (default 50, about a
    /// millisecond).
    pub poll: u32,
}

// SAFETY: repr(C), a size first, no padding, numbers and pointers only.
unsafe impl SizedStruct for esolm_pool_params {
    const NAME: &'static str = "esolm_pool_params";
    const VERSION_1: usize = size_of::<Self>();
    const DEFAULT: Self = Self {
        struct_size: size_of::<Self>(),
        threads: 0,
        cpus: null(),
        n_cpus: 0,
        run: None,
        run_user_data: null_mut(),
        nice: 0,
        poll: ThreadPoolParams::DEFAULT_POLL,
    };
}

/// Sets the defaults; size is sizeof(esolm_pool_params).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_pool_params_init(params: *mut esolm_pool_params, size: usize) -> esolm_status {
    // SAFETY: the header requires NULL or a struct of `size` bytes.
    wrap(|| unsafe { params::init(params, size) })
}

/// The function that a caller's `run` gets, with a pointer to the task as data.
///
/// # Safety
/// `data` must come from [`run_by`], whose call has not ended.
unsafe extern "C" fn run_task(data: *const c_void, i: usize) {
    // SAFETY: by the contract, `data` is a task that lives.
    let task = unsafe { &*data.cast::<&(dyn Fn(usize) + Sync)>() };
    wrap(|| {
        task(i);
        Ok(())
    });
}

/// The caller's `run` as the library's.
fn run_by(
    run: unsafe extern "C" fn(esolm_task, *const c_void, usize, *mut c_void),
    user_data: UserData,
) -> impl Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync {
    move |count, task| {
        // SAFETY: the header requires that `run` may be called so until the pool is freed, and that it returns only when
        // the task is no longer used.
        unsafe { run(Some(run_task), (&raw const task).cast(), count, user_data.get()) };
    }
}

/// Makes a pool. params may be NULL for the defaults. *out is NULL on failure. If the system does not start all threads,
/// there are fewer, with a message in the log. Any thread.
///
/// Errors: ESOLM_ERR_INVALID_ARGUMENT, also for processors or a nice value that the system refuses;
/// ESOLM_ERR_UNSUPPORTED for processors or a nice value on another system than Linux.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_pool_new(
    params: *const esolm_pool_params,
    out: *mut *mut esolm_pool,
) -> esolm_status {
    wrap(|| {
        // SAFETY: the header requires each pointer to be NULL or valid for the call.
        let (out, params) = unsafe { (args::out(out, null_mut(), "out")?, params::read(params)?) };
        let esolm_pool_params { threads, cpus, n_cpus, run, run_user_data, nice, poll, .. } = params;
        // SAFETY: the header requires as many entries as n_cpus says.
        let cpus = unsafe { args::slice(cpus, n_cpus, "cpus")? };
        let pool = match run {
            None => ThreadPool::new(&ThreadPoolParams { threads, poll, cpus, nice })?,
            Some(run) => ThreadPool::of_callers(threads, run_by(run, UserData::new(run_user_data)))?,
        };
        let given = Box::into_raw(Box::new(esolm_pool(pool)));
        // SAFETY: `out` is not NULL (`args::out`), and the header requires it to be valid then.
        unsafe { out.write(given) };
        Ok(())
    })
}

/// The number of threads of a pool, that of the computing context included; 0 for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_pool_threads(pool: *const esolm_pool) -> usize {
    // SAFETY: the header requires NULL or a pool that is not freed during the call.
    unsafe { pool.as_ref() }.map_or(0, |pool| pool.0.threads())
}

/// Frees a pool. Contexts that use it keep its threads until they are freed, too. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn esolm_pool_free(pool: *mut esolm_pool) {
    wrap(|| {
        if !pool.is_null() {
            // SAFETY: `esolm_pool_new` made this pointer from a box, and the header allows it to be freed once.
            drop(unsafe { Box::from_raw(pool) });
        }
        Ok(())
    });
}
