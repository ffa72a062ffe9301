//! Generating.

use std::ffi::{CStr, CString, c_char};
use std::ptr::null;

use esolm::capi::*;
use esolm_fuzz::{Input, VOCAB_SIZE};

use crate::LENGTH;
use crate::callbacks::{on_logits, on_step};
use crate::structs::{Room, array, check, defaults, sized};
use crate::world::World;

impl World {
    pub fn generate(&mut self, input: &mut Input<'_>) {
        let mut params = defaults(esolm_generate_params_init);
        params.length = if input.seldom() { input.size() } else { 0 };
        params.steps = if input.seldom() { input.size() } else { input.below(20) };
        params.seed = input.number();
        params.alpha_0 = if input.seldom() { input.float() } else { 0.5 };
        params.temperature = input.float() as f32;
        params.top_p = if input.seldom() { input.float() as f32 } else { 0.9 };
        params.top_k = if input.seldom() { input.number() as u32 } else { 0 };
        params.order = if input.seldom() { input.number() as i32 } else { input.below(6) as i32 };
        params.order_size = input.size();
        let order = input.permutation(LENGTH);
        (params.custom_order, params.n_custom_order) = array(input, &order);
        let schedule = if input.seldom() { input.list(8, 6) } else { Vec::new() };
        (params.schedule, params.n_schedule) = array(input, &schedule);
        if input.seldom() {
            params.logits_callback = Some(on_logits);
            params.logits_user_data = self.data();
        }
        params.log_probs = if input.seldom() { input.number() as i32 } else { 0 };
        params.confidence = if input.seldom() { input.number() as i32 } else { 0 };
        params.window = input.size();
        params.threshold = input.float() as f32;
        params.lookahead = match input.byte() {
            most @ ..64 => u32::from(most % 18),
            64..80 => input.number() as u32,
            80..96 => ESOLM_LOOKAHEAD_AUTO,
            _ => 0,
        };
        params.max_tokens = if input.seldom() { input.size() } else { 0 };
        params.ignore_eos = if input.seldom() { input.number() as i32 } else { 0 };
        params.step_text =
            if input.seldom() { input.number() as i32 } else { i32::from(input.below(2) == 0) };
        let stop_tokens = if input.seldom() { input.list(4, VOCAB_SIZE) } else { Vec::new() };
        (params.stop_tokens, params.n_stop_tokens) = array(input, &stop_tokens);
        let strings: Vec<CString> = (0..if input.seldom() { input.below(4) } else { 0 })
            .map(|_| {
                let most = input.below(6);
                let bytes = input.take(most).iter().copied().filter(|&byte| byte != 0);
                CString::new(bytes.collect::<Vec<_>>()).expect("no zeros")
            })
            .collect();
        let strings: Vec<*const c_char> = strings.iter().map(|string| string.as_ptr()).collect();
        (params.stop_strings, params.n_stop_strings) = array(input, &strings);
        params.min_p = if input.seldom() { input.float() as f32 } else { 0.0 };
        params.typical_p = if input.seldom() { input.float() as f32 } else { 1.0 };
        params.top_n_sigma = if input.seldom() { input.float() as f32 } else { 0.0 };
        params.top_log_probs = if input.seldom() { input.number() as u32 } else { 0 };
        let lists: Vec<Vec<u32>> = (0..3).map(|_| input.list(4, VOCAB_SIZE)).collect();
        let allowed: Vec<_> = (0..input.below(3))
            .map(|at| {
                let (tokens, n_tokens) = array(input, &lists[at]);
                let reserved = u32::from(input.byte() >= 250);
                esolm_allowed_tokens { position: input.index(LENGTH), reserved, tokens, n_tokens }
            })
            .collect();
        let breakers = input.list(3, VOCAB_SIZE);
        let bias: Vec<_> = (0..input.below(3))
            .map(|_| esolm_logit_bias { token: input.index(VOCAB_SIZE), bias: input.float() as f32 })
            .collect();
        let ((allowed, n_allowed), (banned, n_banned), (bias, n_bias)) =
            (array(input, &allowed), array(input, &lists[2]), array(input, &bias));
        let (dry_breakers, n_dry_breakers) = array(input, &breakers);
        let rules = esolm_constraints {
            struct_size: size_of::<esolm_constraints>(),
            allowed,
            n_allowed,
            banned,
            n_banned,
            bias,
            n_bias,
            repetition_penalty: if input.seldom() { input.float() as f32 } else { 0.0 },
            reserved: u32::from(input.byte() >= 250),
            frequency_penalty: if input.seldom() { input.float() as f32 } else { 0.0 },
            presence_penalty: if input.seldom() { input.float() as f32 } else { 0.0 },
            dry_multiplier: if input.seldom() { input.float() as f32 } else { 0.0 },
            dry_base: if input.seldom() { input.float() as f32 } else { 0.0 },
            dry_allowed_length: input.below(4) as u32,
            dry_range: input.index(LENGTH),
            dry_breakers,
            n_dry_breakers,
            regex: null(),
            json_schema: null(),
        };
        let mut rules = Room::with(input, rules);
        let rules: Vec<*const esolm_constraints> =
            vec![rules.at::<esolm_constraints>(input).cast_const(); input.below(4)];
        if input.seldom() {
            (params.constraints, params.n_constraints) = array(input, &rules);
        }
        let mut room = Room::with(input, params);
        let params = room.at(input);
        let known: Vec<(Vec<u32>, Vec<u32>)> = (0..input.below(4))
            .map(|_| {
                let tokens = input.list(LENGTH + 1, VOCAB_SIZE);
                let mut positions = input.permutation(tokens.len().max(1));
                positions.truncate(tokens.len());
                (tokens, positions)
            })
            .collect();
        let prompts: Vec<_> = known
            .iter()
            .map(|(tokens, positions)| {
                let (tokens, count) = array(input, tokens);
                let positions = if input.seldom() || tokens.is_null() { null() } else { positions.as_ptr() };
                esolm_prompt { tokens, positions, count }
            })
            .collect();
        let (prompts, n) = array(input, &prompts);
        let (context, data, kind) = (self.context(input), self.data(), input.below(7));
        let callback: esolm_step_callback = if input.seldom() { Some(on_step) } else { None };
        // SAFETY: all pointers are NULL or valid, and all arrays as long as they say.
        unsafe {
            match kind {
                0 => check(esolm_generate(context, prompts, n, params, callback, data)),
                1 => check(esolm_extend(context, prompts, n, params)),
                2 | 3 => {
                    let prompt = known.first().map_or(null(), |_| prompts);
                    let mut sequence = 0;
                    let added = check(esolm_sequence_add(context, prompt, params, &mut sequence));
                    assert!(added || sequence == 0);
                    added
                }
                4 => {
                    let prompt = known.first().map_or(null(), |_| prompts);
                    check(esolm_sequence_extend(context, input.index(3), prompt, params))
                }
                _ => check(esolm_begin(context, prompts, n, params)),
            }
        };
    }

    pub fn step(&mut self, input: &mut Input<'_>) {
        let context = self.context(input);
        let (mut info, mut done) = (sized::<esolm_step_info>(), 0);
        for _ in 0..1 + input.below(20) {
            // SAFETY: all pointers are NULL or valid.
            if !check(unsafe { esolm_step(context, &mut info, &mut done) }) || done == 1 {
                assert_eq!(info.n_updates, 0);
                break;
            }
            // SAFETY: there are as many updates as it says.
            let updates = unsafe { std::slice::from_raw_parts(info.updates, info.n_updates) };
            assert!(updates.iter().all(|update| update.token < VOCAB_SIZE as u32));
            assert!(info.n_accepted <= info.n_proposed && info.n_accepted <= info.n_updates);
            if !info.texts.is_null() {
                // SAFETY: there are as many texts as it says, each with a NUL behind it.
                let texts = unsafe { std::slice::from_raw_parts(info.texts, info.n_texts) };
                for text in texts {
                    // SAFETY: as above.
                    let characters = unsafe { CStr::from_ptr(text.text) };
                    assert!(characters.to_str().is_ok() && characters.to_bytes().len() <= text.len);
                }
            }
        }
    }

    /// Sequences that leave, and what is known of those that are there.
    pub fn sequence(&mut self, input: &mut Input<'_>) {
        let (context, sequence) = (self.context(input), input.index(3));
        let (mut n, mut reason, mut threads, mut rows) = (usize::MAX, -1, 0, 0.0);
        // SAFETY: all pointers are NULL or valid.
        unsafe {
            match input.below(5) {
                0 => check(esolm_sequence_remove(context, sequence)),
                1 => check(esolm_sequence_cached_tokens(context, sequence, &mut n)) && n <= LENGTH,
                2 => check(esolm_stop_reason(context, sequence, &mut reason)),
                3 => {
                    // More than the processors of a machine are refused or not started.
                    let wanted = if input.seldom() { input.size() | 1 << 20 } else { input.below(3) };
                    check(esolm_context_set_threads(context, wanted));
                    check(esolm_context_threads(context, &mut threads))
                }
                _ => {
                    // Measuring takes some passes.
                    if input.seldom() && check(esolm_context_measure_pass_overhead(context, &mut rows)) {
                        assert!((0.1..=256.0).contains(&rows));
                    }
                    check(esolm_context_set_pass_overhead(context, input.float() as f32))
                }
            }
        };
    }
}
