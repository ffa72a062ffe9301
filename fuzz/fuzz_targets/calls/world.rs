//! Models and contexts, and the calls that make them.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::LazyLock;

use esolm::Variant;
use esolm::capi::*;
use esolm::gguf::TensorType;
use esolm_fuzz::{Input, MOST_ARENA, TOKENIZER, VOCAB_SIZE, bytes, config};

use crate::LENGTH;
use crate::callbacks::{Callbacks, on_progress};
use crate::structs::{Room, check, defaults, sized};

/// Model files, for esolm_model_open_memory.
pub static FILES: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    [Variant::EsoB, Variant::EsoA, Variant::Ar]
        .map(|variant| bytes(&config(variant), TOKENIZER, TensorType::F32))
});

/// What there is between two calls.
pub struct World {
    pub model: *mut esolm_model,
    pub context: *mut esolm_context,
    /// Memory that the context may lie in.
    pub arena: Vec<u128>,
    pub state: Vec<u8>,
    pub callbacks: Box<Callbacks>,
}

impl World {
    pub fn data(&self) -> *mut c_void {
        (&raw const *self.callbacks).cast_mut().cast()
    }

    /// The context, seldom NULL.
    pub fn context(&self, input: &mut Input<'_>) -> *mut esolm_context {
        if input.byte() >= 250 { null_mut() } else { self.context }
    }

    pub fn free_context(&mut self) {
        // SAFETY: the context was made by the library or is NULL.
        unsafe { esolm_context_free(self.context) };
        self.context = null_mut();
        self.callbacks.context.set(null_mut());
        self.arena = Vec::new();
    }

    pub fn open(&mut self, input: &mut Input<'_>) {
        let mut file = FILES[input.below(3)].clone();
        for _ in 0..input.below(4).saturating_sub(1) {
            let at = input.number() as usize % file.len();
            file[at] = input.byte();
        }
        let mut params = defaults(esolm_model_params_init);
        let name = [input.byte(), input.byte(), 0];
        params.device = if input.seldom() { name.as_ptr().cast() } else { c"cpu".as_ptr() };
        // The bytes are freed at the end of this call, so they have to be copied, or the mode is none.
        params.mode =
            if input.seldom() { (input.number() as i32).max(ESOLM_MODE_COPY) } else { ESOLM_MODE_COPY };
        params.progress_callback = Some(on_progress);
        params.progress_user_data = self.data();
        params.reserved = u32::from(input.byte() >= 250);
        let mut room = Room::with(input, params);
        let params = (&raw mut *room).cast::<esolm_model_params>().cast_const();
        let (mut out, n) = (null_mut(), if input.seldom() { input.below(file.len()) } else { file.len() });
        // SAFETY: all pointers are valid.
        if check(unsafe { esolm_model_open_memory(file.as_ptr().cast(), n, params, &mut out) }) {
            let mut info = sized::<esolm_model_info>();
            // SAFETY: both pointers are valid; the model was made by the library and is freed once.
            unsafe {
                check(esolm_model_info_get(out, &mut info));
                if (info.vocab_size, info.context_length) != (VOCAB_SIZE, LENGTH) {
                    return esolm_model_free(out);
                }
            }
            self.free_context();
            // SAFETY: the model was made by the library; it is freed once.
            unsafe {
                check(esolm_model_retain(out));
                esolm_model_free(out);
                esolm_model_free(self.model);
            }
            self.model = out;
        } else {
            assert!(out.is_null());
        }
    }

    pub fn make_context(&mut self, input: &mut Input<'_>) {
        let mut params = defaults(esolm_context_params_init);
        params.threads = if input.byte() >= 250 { 2 } else { 1 };
        params.sequences = if input.seldom() { input.size() } else { input.below(4) };
        params.length = if input.seldom() { input.size() } else { input.below(LENGTH + 1) };
        params.batch_rows = if input.seldom() { input.size() } else { input.below(64) };
        params.prompt_rows = if input.seldom() { input.size() } else { input.below(8) };
        params.kv_type = if input.seldom() { input.number() as i32 } else { ESOLM_KV_F16 };
        params.kernels = if input.byte() >= 240 { input.number() as i32 } else { ESOLM_KERNELS_OWN };
        if params.kernels == ESOLM_KERNELS_GGML {
            // Its threads wait by spinning: minutes, on a machine with other work.
            params.threads = 1;
        }
        let mut room = Room::with(input, params);
        let params = room.at(input);
        let (mut size, mut out) = (0, null_mut());
        let mut memory = Room::with(input, sized::<esolm_memory_use>());
        let memory = memory.at(input);
        // SAFETY: all pointers are NULL or valid.
        unsafe {
            check(esolm_context_memory_use(self.model, params, memory));
            if !check(esolm_context_arena_size(self.model, params, &mut size)) || size > MOST_ARENA {
                return;
            }
        }
        self.free_context();
        let status = if input.seldom() {
            self.arena = vec![u128::MAX; size / 16 + 8];
            let start = self.arena.as_mut_ptr().cast::<u8>();
            let at = start.align_offset(ESOLM_ARENA_ALIGNMENT) + usize::from(input.byte() >= 250);
            let given = if input.byte() >= 250 { size - 1 } else { size };
            // SAFETY: the memory is as large and lives until the context is freed.
            unsafe { esolm_context_new_in(self.model, params, start.add(at).cast(), given, &mut out) }
        } else {
            // SAFETY: all pointers are NULL or valid.
            unsafe { esolm_context_new(self.model, params, &mut out) }
        };
        assert_eq!(check(status), !out.is_null());
        self.context = out;
        self.callbacks.context.set(out);
    }
}
