//! Small models with random weights, and what the network makes of them by the plain definition in f64: no cache,
//! no passes, every row computed from scratch.

use std::collections::HashMap;

use esolm::config::{Config, Variant};
use esolm::gguf::{TensorType, Writer};
use esolm::{LoadOptions, Model};

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

    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// A whole number in 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

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
}

/// Hyperparameters of a model this small.
pub fn config(block_count: usize, head_count: usize) -> Config {
    Config {
        variant: Variant::EsoB,
        context_length: 48,
        embedding_length: 64,
        block_count,
        feed_forward_length: 160,
        head_count,
        layer_norm_epsilon: 1e-5,
        rope_freq_base: 10_000.0,
        vocab_size: 101,
        mask_token_id: 100,
        eos_token_id: None,
        bos_token_id: None,
        prepend_token_id: None,
        train_alpha_0: None,
    }
}

/// A model's weights.
pub struct RandomModel {
    pub config: Config,
    pub tensors: HashMap<String, Vec<f32>>,
}

impl RandomModel {
    /// Weights ~ N(0, 0.2), the norms' around 1.
    pub fn new(config: Config, seed: u64) -> Self {
        let mut random = Random(seed);
        let tensors = config.tensors().into_iter().map(|spec| {
            let centre = if spec.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
            let len: usize = spec.dims.iter().product();
            let values = (0..len).map(|_| (centre + 0.2 * random.normal()) as f32).collect();
            (spec.name, values)
        });
        let tensors = tensors.collect();
        Self { config, tensors }
    }

    /// The weights as a GGUF file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.config.write(&mut writer);
        for spec in self.config.tensors() {
            writer.declare(&spec.name, TensorType::F32, &spec.dims).unwrap();
        }
        let mut out = Vec::new();
        let fill = |name: &str, bytes: &mut Vec<u8>| {
            bytes.extend(self.tensors[name].iter().flat_map(|v| v.to_le_bytes()));
            Ok(())
        };
        writer.write(&mut out, fill).unwrap();
        out
    }

    /// The model on the CPU.
    pub fn open(&self) -> Model {
        let options = LoadOptions { device: "cpu".into(), ..LoadOptions::default() };
        Model::from_bytes(&self.bytes(), &options).unwrap()
    }

    fn block(&self, block: usize, part: &str) -> &[f32] {
        &self.tensors[&format!("blk.{block}.{part}")]
    }

    /// Logits of every row. A row is a token and its position in the text; it attends to itself and all rows
    /// before it.
    pub fn logits(&self, rows: &[(u32, u32)]) -> Vec<Vec<f64>> {
        self.logits_behind(rows, 0)
    }

    /// The same, but the first `both_ways` rows attend to all of themselves: Eso-LM (A).
    pub fn logits_behind(&self, rows: &[(u32, u32)], both_ways: usize) -> Vec<Vec<f64>> {
        let width = self.config.embedding_length;
        let embedding = &self.tensors["token_embd.weight"];
        let row = |token: u32| &embedding[token as usize * width..(token as usize + 1) * width];
        let mut x: Vec<Vec<f64>> =
            rows.iter().map(|&(token, _)| row(token).iter().map(|&v| f64::from(v)).collect()).collect();
        for block in 0..self.config.block_count {
            let part = |name: &str| self.block(block, name);
            let norm = |x: &[f64]| self.norm(x, part("attn_norm.weight"), part("attn_norm.bias"));
            let qkv: Vec<Vec<f64>> =
                x.iter().map(|x| linear(part("attn_qkv.weight"), None, &norm(x))).collect();
            for (x, mixed) in x.iter_mut().zip(self.attention(&qkv, rows, both_ways)) {
                add(x, &linear(part("attn_output.weight"), None, &mixed));
            }
            for x in &mut x {
                let y = self.norm(x, part("ffn_norm.weight"), part("ffn_norm.bias"));
                let mut hidden = linear(part("ffn_up.weight"), Some(part("ffn_up.bias")), &y);
                hidden.iter_mut().for_each(|h| *h = gelu(*h));
                add(x, &linear(part("ffn_down.weight"), Some(part("ffn_down.bias")), &hidden));
            }
        }
        let [weight, bias] = ["output_norm.weight", "output_norm.bias"].map(|name| &self.tensors[name]);
        let output = |x: &Vec<f64>| {
            let y = self.norm(x, weight, bias);
            linear(&self.tensors["output.weight"], Some(&self.tensors["output.bias"]), &y)
        };
        x.iter().map(output).collect()
    }

    pub fn norm(&self, x: &[f64], weight: &[f32], bias: &[f32]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(self.config.layer_norm_epsilon)).sqrt();
        let affine = weight.iter().zip(bias);
        x.iter().zip(affine).map(|(x, (&w, &b))| (x - mean) * scale * f64::from(w) + f64::from(b)).collect()
    }

    /// Softmax attention of each row over itself and those before it, of the first `both_ways` over all of them; rows of
    /// qkv are (three, head, dim).
    fn attention(&self, qkv: &[Vec<f64>], rows: &[(u32, u32)], both_ways: usize) -> Vec<Vec<f64>> {
        let (width, dim) = (self.config.embedding_length, self.config.head_dim());
        let mut out = vec![vec![0.0; width]; rows.len()];
        for head in (0..width).step_by(dim) {
            let slice = |row: usize, third: usize| {
                let from = third * width + head;
                &qkv[row][from..from + dim]
            };
            let turned = |third: usize| -> Vec<Vec<f64>> {
                let each = rows.iter().enumerate();
                each.map(|(row, &(_, position))| self.rotate(slice(row, third), position)).collect()
            };
            let (q, k) = (turned(0), turned(1));
            for row in 0..rows.len() {
                let score = |k: &Vec<f64>| dot(&q[row], k) / (dim as f64).sqrt();
                let seen = if row < both_ways { both_ways } else { row + 1 };
                let scores: Vec<f64> = k[..seen].iter().map(score).collect();
                let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - peak).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (other, weight) in weights.iter().enumerate() {
                    for (to, v) in out[row][head..head + dim].iter_mut().zip(slice(other, 2)) {
                        *to += weight / total * v;
                    }
                }
            }
        }
        out
    }

    /// Rotates the pairs (i, i + dim/2) by the position.
    fn rotate(&self, x: &[f64], position: u32) -> Vec<f64> {
        let half = x.len() / 2;
        let mut out = x.to_vec();
        for i in 0..half {
            let frequency = f64::from(self.config.rope_freq_base).powf(-2.0 * i as f64 / x.len() as f64);
            let (sin, cos) = (f64::from(position) * frequency).sin_cos();
            out[i] = x[i] * cos - x[i + half] * sin;
            out[i + half] = x[i + half] * cos + x[i] * sin;
        }
        out
    }
}

/// W x + b; W is stored row by row.
fn linear(weight: &[f32], bias: Option<&[f32]>, x: &[f64]) -> Vec<f64> {
    let rows = weight.chunks_exact(x.len());
    let mut y: Vec<f64> = rows.map(|w| w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect();
    if let Some(bias) = bias {
        y.iter_mut().zip(bias).for_each(|(y, &b)| *y += f64::from(b));
    }
    y
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
