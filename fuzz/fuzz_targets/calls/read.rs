//! What reads and restores a generation, and scoring.

use std::ffi::c_char;
use std::ptr::{null, null_mut};

use esolm::capi::*;
use esolm_fuzz::{Input, VOCAB_SIZE};

use crate::LENGTH;
use crate::callbacks::on_progress;
use crate::structs::{Room, array, check, defaults, sized};
use crate::world::World;

impl World {
    pub fn copy(&mut self, input: &mut Input<'_>) {
        let context = self.context(input);
        let sequence = input.index(3);
        let mut tokens = vec![0u32; input.below(LENGTH + 4)];
        let mut text = vec![0u8; input.below(64)];
        let (mut n, capacity) = (usize::MAX, tokens.len());
        let at = if capacity == 0 { null_mut() } else { tokens.as_mut_ptr() };
        // SAFETY: all pointers are NULL or valid, and the arrays have room for as much as is said.
        unsafe {
            match input.below(3) {
                2 => check(esolm_copy_text(context, sequence, text.as_mut_ptr().cast(), text.len(), &mut n)),
                kind => {
                    let copy = if kind == 0 { esolm_copy_tokens } else { esolm_copy_order };
                    check(copy(context, sequence, at, capacity, &mut n))
                }
            };
            assert!(n <= 1024);
            let mut profile = Room::with(input, sized::<esolm_profile>());
            check(esolm_context_profile(context, profile.at(input)));
        }
    }

    pub fn state(&mut self, input: &mut Input<'_>) {
        let (context, mut size) = (self.context(input), 0);
        // SAFETY: all pointers are NULL or valid, and the arrays have room for as much as is said.
        unsafe {
            if input.below(2) == 0 {
                let status = esolm_state_save(context, null_mut(), 0, &mut size);
                assert!(!check(status));
                if status == ESOLM_ERR_BUFFER_TOO_SMALL {
                    let mut state = vec![0u8; if input.seldom() { input.below(size) } else { size }];
                    if check(esolm_state_save(context, state.as_mut_ptr().cast(), state.len(), &mut size)) {
                        assert_eq!(size, state.len());
                        self.state = state;
                    }
                }
            } else {
                let mut state = self.state.clone();
                if input.seldom()
                    && let Some(len) = state.len().checked_sub(5)
                {
                    state[input.number() as usize % (len + 1)] ^= input.byte();
                    if let Some((body, crc)) = state.split_last_chunk_mut::<4>() {
                        *crc = crc32fast::hash(body).to_le_bytes();
                    }
                }
                let (state, size) = array(input, &state);
                check(esolm_state_restore(context, state.cast(), if state.is_null() { 0 } else { size }));
            }
        }
    }

    pub fn text(&mut self, input: &mut Input<'_>) {
        let (mut n, mut length, model) = (usize::MAX, 0, self.model);
        let most = input.below(40);
        let bytes = input.take(most).to_vec();
        let (text, len) = (bytes.as_ptr().cast::<c_char>(), bytes.len());
        let mut out = vec![0u32; input.below(20)];
        let mut positions = vec![0u32; out.len()];
        let mut chars = vec![0u8; input.below(80)];
        let (out_at, capacity) = (out.as_mut_ptr(), out.len());
        let (chars_at, room) = (chars.as_mut_ptr(), chars.len());
        let tokens = input.list(LENGTH, VOCAB_SIZE);
        let (tokens_at, n_tokens) = array(input, &tokens);
        let name =
            std::ffi::CString::new(bytes.iter().copied().filter(|&byte| byte != 0).collect::<Vec<_>>());
        let name = name.expect("no zeros");
        // SAFETY: all pointers are NULL or valid, and the arrays have room for as much as is said.
        unsafe {
            match input.below(8) {
                0 => check(esolm_tokenize(model, text, len, out_at, capacity, &mut n)),
                1 => {
                    let positions = positions.as_mut_ptr();
                    check(esolm_tokenize_template(
                        model,
                        text,
                        len,
                        out_at,
                        positions,
                        capacity,
                        &mut n,
                        &mut length,
                    ))
                }
                2 => check(esolm_detokenize(model, tokens_at, n_tokens, chars_at.cast(), room, &mut n)),
                3 => check(esolm_token_bytes(model, input.index(VOCAB_SIZE), chars_at, room, &mut n)),
                4 => check(esolm_model_metadata_key(model, input.size(), chars_at.cast(), room, &mut n)),
                5 => check(esolm_model_metadata_get(model, name.as_ptr(), chars_at.cast(), room, &mut n)),
                6 => {
                    let mut info = Room::with(input, sized::<esolm_model_info>());
                    check(esolm_model_info_get(model, info.at(input)))
                }
                _ => {
                    // Names are bytes, which may be zero.
                    let mut info = Room::with(input, size_of::<esolm_device_info>());
                    check(esolm_device_info_get(input.size(), info.at(input)))
                }
            };
        }
    }

    pub fn score(&mut self, input: &mut Input<'_>) {
        let mut params = defaults(esolm_score_params_init);
        params.orders = if input.seldom() { input.below(8) } else { 1 };
        params.draws = if input.seldom() { input.below(8) } else { 0 };
        if input.byte() >= 250 {
            // Beyond the limit, or else it may take long.
            params.orders = input.size() | 1 << 21;
        }
        params.seed = input.number();
        params.alpha_0 = if input.seldom() { input.float() } else { 1.0 };
        params.random_order = if input.seldom() { input.number() as i32 } else { 0 };
        params.reserved = u32::from(input.byte() >= 250);
        let mut room = Room::with(input, params);
        let params = room.at(input);
        let mut score = Room::with(input, sized::<esolm_text_score>());
        let tokens = input.list(40, VOCAB_SIZE);
        let order = input.permutation(tokens.len());
        let (tokens_at, n) = array(input, &tokens);
        let order_at = if input.seldom() || tokens_at.is_null() { null() } else { order.as_ptr() };
        let mut log_p = vec![0f64; input.below(48)];
        let (known, capacity) = (input.index(LENGTH) as usize, log_p.len());
        let log_p = if capacity == 0 { null_mut() } else { log_p.as_mut_ptr() };
        let (context, data) = (self.context(input), self.data());
        // SAFETY: all pointers are NULL or valid, and the arrays have room for as much as is said.
        unsafe {
            match input.below(3) {
                0 => {
                    let (score, progress) = (score.at(input), Some(on_progress as _));
                    check(esolm_score_text(
                        context, tokens_at, n, params, log_p, capacity, score, progress, data,
                    ))
                }
                kind => {
                    let score = if kind == 1 { esolm_score_order } else { esolm_score_masked };
                    check(score(context, tokens_at, order_at, n, known, log_p, capacity))
                }
            };
        }
    }

    /// Logits and probabilities of any positions, and the most likely tokens of the last step.
    pub fn evaluate(&mut self, input: &mut Input<'_>) {
        let (context, sequence, kind) = (self.context(input), input.index(3), input.below(3));
        let positions = input.list(6, LENGTH);
        let (positions_at, n_positions) = array(input, &positions);
        let exact = positions.len() * VOCAB_SIZE;
        let mut values = vec![0f32; if input.seldom() { input.below(exact + 1) } else { exact }];
        let mut entries = [esolm_token_log_prob { token: 0, log_prob: 0.0 }; 8];
        let (mut n, capacity, values) = (usize::MAX, values.len(), values.as_mut_ptr());
        // SAFETY: all pointers are NULL or valid, and the arrays have room for as much as is said.
        unsafe {
            match kind {
                2 => {
                    let room = input.below(entries.len() + 1);
                    check(esolm_copy_top_log_probs(context, input.size(), entries.as_mut_ptr(), room, &mut n))
                }
                kind => {
                    let evaluate =
                        if kind == 0 { esolm_evaluate_logits } else { esolm_evaluate_probabilities };
                    check(evaluate(context, sequence, positions_at, n_positions, values, capacity, &mut n))
                }
            }
        };
    }
}
