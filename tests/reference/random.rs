//! Small models with random weights.

use esolm::{Architecture, Config, Defaults, Variant};

use super::Network;

/// The context length of [`config`].
pub const LENGTH: usize = 48;
/// The mask token of [`config`], the last of the vocabulary.
pub const MASK: u32 = 100;

/// Random numbers for tests (splitmix64), so that a seed means the same on every machine.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1.
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// An integer in 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// Normally distributed, with mean 0 and variance 1.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// A permutation of 0..n.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            all.swap(i, self.below(i + 1));
        }
        all
    }

    /// A text of `length` tokens, none of them the mask.
    pub fn text(&mut self, length: usize) -> Vec<u32> {
        (0..length).map(|_| self.below(MASK as usize) as u32).collect()
    }
}

/// Hyperparameters of a small Eso-LM (B).
pub fn config(block_count: usize, head_count: usize) -> Config {
    Config {
        variant: Variant::EsoB,
        block_length: 0,
        context_length: LENGTH,
        embedding_length: 64,
        block_count,
        feed_forward_length: 160,
        head_count,
        architecture: Architecture::DIT,
        norm_epsilon: 1e-5,
        rope_freq_base: 10_000.0,
        vocab_size: 101,
        mask_token_id: MASK,
        eos_token_id: None,
        other_eos_token_ids: Vec::new(),
        bos_token_id: None,
        prepend_token_id: None,
        needs_first_token: false,
        diffusion_only: false,
        train_alpha_0: None,
        defaults: Defaults::default(),
    }
}

impl Network {
    /// Weights with a standard deviation of 0.2, around 1 for those of the norms and around 0 for all others.
    pub fn random(config: Config, seed: u64) -> Self {
        let mut random = Random(seed);
        let tensors = config.tensors().unwrap().into_iter().map(|spec| {
            let mean = if spec.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
            let len: usize = spec.dims.iter().product();
            let values = (0..len).map(|_| (mean + 0.2 * random.normal()) as f32).collect();
            (spec.name, values)
        });
        let tensors = tensors.collect();
        Self { config, tensors }
    }

    /// A random Qwen or WeDLM of three blocks whose four heads of queries share two of keys and values.
    pub fn qwen(variant: Variant, architecture: Architecture, seed: u64) -> Self {
        let architecture = Architecture { kv_head_count: Some(2), ..architecture };
        Self::random(Config { architecture, ..Self::qwen_config(variant) }, seed)
    }

    /// Hyperparameters of such a model, but for its architecture.
    pub fn qwen_config(variant: Variant) -> Config {
        Config { variant, needs_first_token: true, norm_epsilon: 1e-6, rope_freq_base: 1e6, ..config(3, 4) }
    }

    /// A random model of two blocks.
    pub fn small(variant: Variant, seed: u64) -> Self {
        Self::random(Config { variant, ..config(2, 4) }, seed)
    }
}
