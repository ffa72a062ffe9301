//! The network of an Eso-LM, and of Qwen and WeDLM, small and complete: what `src/forward` computes, written for reading.
//!
//! Everything is f64, nothing is cached, and every row is computed from scratch. Tests compare the library with it,
//! and it is itself compared with logits of the authors' code (`integration/reference_network.rs`).
//!
//! The paper is arXiv 2506.01928; names in `code` that the library does not have are those of the authors' PyTorch
//! code. Their network depends on a condition (`adaLN_modulation`, `sigma_map`), which is constant as no time is
//! given to it. The converter multiplies it into the weights, and what is left is the plain pre-norm transformer of
//! this file. Tensors have their names in the model file; a matrix is stored row by row, [out, in].

mod file;
mod random;

use std::collections::HashMap;

use esolm::{Config, Mlp, Variant};
pub use random::{LENGTH, MASK, Random, config};

/// A model's weights.
pub struct Network {
    pub config: Config,
    pub tensors: HashMap<String, Vec<f32>>,
}

/// What the network is fed for one place of the generation order: a token and its position in the text.
pub type Row = (u32, u32);

/// Which rows a row attends to. Rows come in generation order: known tokens, then masks.
#[derive(Clone, Copy, Debug)]
pub enum Attention {
    /// Each row sees itself and the rows before it. Eso-LM (B) in both phases (`causal`), so that keys and values of
    /// a known token never change; AR (`causal_attention`); and WeDLM.
    Causal,
    /// The first rows see all of each other, the others are causal. Eso-LM (A): in the diffusion phase (`mixed2`) the
    /// first rows are the known tokens, in the sequential phase (`mixed`) those that were known when it began.
    CausalAfter(usize),
    /// Each row sees all. MDLM (the backbone `dit`).
    Bidirectional,
    /// Rows, which are in the text's order, see those up to the end of their block of so many. BD3-LM.
    Blocks(usize),
}

impl Attention {
    /// How a model attends in a step with `known` known tokens. The sequential phase begins with `begun` of them.
    pub fn of(config: &Config, known: usize, begun: usize) -> Self {
        let block = config.block_length;
        match config.variant {
            Variant::EsoB | Variant::Ar | Variant::WeDlm => Self::Causal,
            Variant::EsoA => Self::CausalAfter(known.min(begun)),
            Variant::Mdlm => Self::Bidirectional,
            Variant::Bd3Lm => Self::Blocks(block),
        }
    }

    /// How many rows, from the first, the row at `place` of `rows` sees.
    fn visible(self, place: usize, rows: usize) -> usize {
        match self {
            Self::Causal => place + 1,
            Self::CausalAfter(both_ways) if place < both_ways => both_ways,
            Self::CausalAfter(_) => place + 1,
            Self::Bidirectional => rows,
            Self::Blocks(block) => ((place / block + 1) * block).min(rows),
        }
    }
}

impl Network {
    /// The logits of every row.
    pub fn logits(&self, rows: &[Row], attention: Attention) -> Vec<Vec<f64>> {
        // 1. Each token's embedding (`vocab_embed`). It does not depend on the position.
        let mut x: Vec<Vec<f64>> = rows.iter().map(|&(token, _)| self.embedding(token)).collect();
        for block in 0..self.config.block_count {
            let name = |part: &str| format!("blk.{block}.{part}");
            // 2. Attention: normalize (`norm1`), make queries, keys and values (`attn_qkv`), mix the values, project
            //    (`attn_out`), add.
            let qkv: Vec<Vec<f64>> =
                x.iter().map(|x| self.qkv(block, &self.norm(&name("attn_norm"), x))).collect();
            for (x, mixed) in x.iter_mut().zip(self.attention(&qkv, rows, attention)) {
                add(x, &self.linear(&name("attn_output"), &mixed));
            }
            // 3. Feed forward, row by row: normalize (`norm2`), widen (`mlp.0`), GELU, narrow (`mlp.2`), add. In Qwen a gate
            //    takes the place of GELU (`gate_proj`).
            for x in &mut x {
                let normed = self.norm(&name("ffn_norm"), x);
                let mut hidden = self.linear(&name("ffn_up"), &normed);
                match self.config.architecture.mlp {
                    Mlp::Gelu => hidden.iter_mut().for_each(|h| *h = gelu(*h)),
                    Mlp::SwiGlu => {
                        let gate = self.linear(&name("ffn_gate"), &normed);
                        hidden.iter_mut().zip(gate).for_each(|(h, gate)| *h *= gate / (1.0 + (-gate).exp()));
                    }
                }
                add(x, &self.linear(&name("ffn_down"), &hidden));
            }
        }
        // 4. Logits: normalize (`norm_final`) and multiply by the output matrix (`output_layer.linear`), which is
        //    another one than the embedding's, but for some of Qwen's.
        let output = if self.config.architecture.tied_output { "token_embd" } else { "output" };
        x.iter().map(|x| self.linear(output, &self.norm("output_norm", x))).collect()
    }

    pub fn embedding(&self, token: u32) -> Vec<f64> {
        let width = self.config.embedding_length;
        let row = &self.tensors["token_embd.weight"][token as usize * width..][..width];
        row.iter().map(|&v| f64::from(v)).collect()
    }

    /// Queries of all heads, keys, values: of one matrix, or of three.
    fn qkv(&self, block: usize, x: &[f64]) -> Vec<f64> {
        let name = |part: &str| format!("blk.{block}.{part}");
        if self.config.architecture.fused_qkv {
            return self.linear(&name("attn_qkv"), x);
        }
        let (mut q, mut k) = (self.linear(&name("attn_q"), x), self.linear(&name("attn_k"), x));
        if self.config.architecture.qk_norm {
            // Of each head for itself, before it is rotated.
            for (all, name) in [(&mut q, name("attn_q_norm")), (&mut k, name("attn_k_norm"))] {
                for head in all.chunks_exact_mut(self.config.head_dim()) {
                    let normed = self.norm(&name, head);
                    head.copy_from_slice(&normed);
                }
            }
        }
        [q, k, self.linear(&name("attn_v"), x)].concat()
    }

    /// LayerNorm or RMSNorm: to mean 0 and variance 1, then times `name.weight` plus `name.bias`; or to a mean square of 1,
    /// then times `name.weight`.
    pub fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let Some(bias) = self.tensors.get(&format!("{name}.bias")) else {
            let square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (square + f64::from(self.config.norm_epsilon)).sqrt();
            let weight = &self.tensors[&format!("{name}.weight")];
            return x.iter().zip(weight).map(|(x, &w)| x * scale * f64::from(w)).collect();
        };
        self.layer_norm(name, bias, x)
    }

    fn layer_norm(&self, name: &str, bias: &[f32], x: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(self.config.norm_epsilon)).sqrt();
        let weight = &self.tensors[&format!("{name}.weight")];
        let affine = weight.iter().zip(bias);
        x.iter().zip(affine).map(|(x, (&w, &b))| (x - mean) * scale * f64::from(w) + f64::from(b)).collect()
    }

    /// `W x`, plus the bias where the file has one.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let rows = self.tensors[&format!("{name}.weight")].chunks_exact(x.len());
        let mut y: Vec<f64> = rows.map(|w| w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect();
        if let Some(bias) = self.tensors.get(&format!("{name}.bias")) {
            y.iter_mut().zip(bias).for_each(|(y, &b)| *y += f64::from(b));
        }
        y
    }

    /// Softmax attention of every head. A row of `qkv` holds the queries of all heads, then the keys, then the
    /// values.
    fn attention(&self, qkv: &[Vec<f64>], rows: &[Row], attention: Attention) -> Vec<Vec<f64>> {
        let (dim, heads, kv_heads) =
            (self.config.head_dim(), self.config.head_count, self.config.kv_head_count());
        let mut out = vec![vec![0.0; heads * dim]; rows.len()];
        for number in 0..heads {
            // In some models several heads share keys and values.
            let (head, shared) = (number * dim, number / (heads / kv_heads) * dim);
            let starts = [head, heads * dim + shared, (heads + kv_heads) * dim + shared];
            let part = |row: usize, which: usize| &qkv[row][starts[which]..][..dim];
            // Queries and keys are rotated by the token's position in the text, not by its place in the order.
            let rotated = |which| -> Vec<Vec<f64>> {
                (0..rows.len()).map(|row| self.rope(part(row, which), rows[row].1)).collect()
            };
            let (q, k) = (rotated(0), rotated(1));
            for row in 0..rows.len() {
                let visible = attention.visible(row, rows.len());
                let scores = k[..visible].iter().map(|k| dot(&q[row], k) / (dim as f64).sqrt());
                for (other, weight) in softmax(&scores.collect::<Vec<_>>()).into_iter().enumerate() {
                    let values = part(other, 2).iter();
                    out[row][head..][..dim].iter_mut().zip(values).for_each(|(to, v)| *to += weight * v);
                }
            }
        }
        out
    }

    /// Rotary position embedding: rotates the pairs (i, i + dim/2) of a head, each at a frequency of its own.
    fn rope(&self, x: &[f64], position: u32) -> Vec<f64> {
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

fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The approximation by tanh.
fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
