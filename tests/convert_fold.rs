//! The proof that folding is right: a plain transformer in f64, which knows nothing of conditions, computes the
//! reference's logits from the converted tensors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "convert")]

use std::path::Path;

use esolm::config::Config;
use esolm::convert::{Options, convert};
use esolm::gguf::{Gguf, TensorType};
use safetensors::SafeTensors;

/// A converted model in f64.
struct Model {
    config: Config,
    tensors: std::collections::HashMap<String, Vec<f64>>,
}

impl Model {
    fn convert(input: &Path, options: &Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.gguf");
        convert(input, &path, options, &mut |_| {}).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let gguf = Gguf::parse(&bytes, "out.gguf").unwrap();
        let tensors = gguf.tensors().iter().map(|t| {
            assert_eq!(t.ty, TensorType::F32);
            let floats = bytes[t.range.clone()].as_chunks::<4>().0;
            (t.name.clone(), floats.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect())
        });
        Self { config: Config::from_gguf(&gguf).unwrap(), tensors: tensors.collect() }
    }

    /// `W x`, W being [out, in].
    fn mul(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let rows = self.tensors[name].chunks_exact(x.len());
        rows.map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(self.config.layer_norm_epsilon)).sqrt();
        let (w, b) = (&self.tensors[&format!("{name}.weight")], &self.tensors[&format!("{name}.bias")]);
        x.iter().zip(w.iter().zip(b)).map(|(v, (w, b))| (v - mean) * scale * w + b).collect()
    }

    /// Rotates every head's halves against each other by the token's position.
    fn rope(&self, x: &mut [f64], position: f64) {
        let (dim, half) = (self.config.head_dim(), self.config.head_dim() / 2);
        for head in x.chunks_exact_mut(dim) {
            for i in 0..half {
                let angle =
                    position * f64::from(self.config.rope_freq_base).powf(-2.0 * i as f64 / dim as f64);
                let (sin, cos) = angle.sin_cos();
                let (a, b) = (head[i], head[i + half]);
                (head[i], head[i + half]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
    }

    /// Logits of every token, each attending to itself and those before it in the order given.
    fn logits(&self, tokens: &[i32], positions: &[i32]) -> Vec<Vec<f64>> {
        let (d, dim) = (self.config.embedding_length, self.config.head_dim());
        let embedding = &self.tensors["token_embd.weight"];
        let mut x: Vec<Vec<f64>> =
            tokens.iter().map(|&t| embedding[t as usize * d..(t as usize + 1) * d].to_vec()).collect();
        for block in 0..self.config.block_count {
            let name = |part: &str| format!("blk.{block}.{part}");
            let (mut queries, mut keys, mut values) = (vec![], vec![], vec![]);
            for (x, &position) in x.iter().zip(positions) {
                let qkv = self.mul(&name("attn_qkv.weight"), &self.norm(&name("attn_norm"), x));
                let (mut q, mut k) = (qkv[..d].to_vec(), qkv[d..2 * d].to_vec());
                self.rope(&mut q, f64::from(position));
                self.rope(&mut k, f64::from(position));
                queries.push(q);
                keys.push(k);
                values.push(qkv[2 * d..].to_vec());
            }
            for (row, x) in x.iter_mut().enumerate() {
                let mut mixed = vec![0.0; d];
                for head in (0..d).step_by(dim) {
                    let of = |v: &Vec<f64>| v[head..head + dim].to_vec();
                    let q = of(&queries[row]);
                    let scores: Vec<f64> = keys[..=row]
                        .iter()
                        .map(|k| of(k).iter().zip(&q).map(|(k, q)| k * q).sum::<f64>() / (dim as f64).sqrt())
                        .collect();
                    let max = scores.iter().copied().fold(f64::MIN, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for (weight, value) in weights.iter().zip(&values) {
                        for (m, v) in mixed[head..].iter_mut().zip(of(value)) {
                            *m += weight / sum * v;
                        }
                    }
                }
                add(x, &self.mul(&name("attn_output.weight"), &mixed));
                let mut hidden = self.mul(&name("ffn_up.weight"), &self.norm(&name("ffn_norm"), x));
                add(&mut hidden, &self.tensors[&name("ffn_up.bias")]);
                hidden.iter_mut().for_each(|v| *v = gelu(*v));
                add(x, &self.mul(&name("ffn_down.weight"), &hidden));
                add(x, &self.tensors[&name("ffn_down.bias")]);
            }
        }
        let head = |x: &Vec<f64>| {
            let mut logits = self.mul("output.weight", &self.norm("output_norm", x));
            add(&mut logits, &self.tensors["output.bias"]);
            logits
        };
        x.iter().map(head).collect()
    }
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

/// The first `sequences` cases of the diffusion phase against `expected`: the largest difference.
fn largest_difference(model: &Model, golden: &SafeTensors<'_>, expected: &str, sequences: usize) -> f64 {
    let ints = |name: &str| {
        let view = golden.tensor(name).unwrap();
        view.data().as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect::<Vec<_>>()
    };
    let (tokens, order) = (ints("diff.zt"), ints("diff.sort_idx"));
    let logits = golden.tensor(expected).unwrap();
    let mut expected = logits.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
    let length = model.config.context_length;
    let mut worst = 0f64;
    for i in 0..sequences {
        let range = i * length..(i + 1) * length;
        for row in model.logits(&tokens[range.clone()], &order[range]) {
            assert_eq!(row.len(), model.config.vocab_size);
            worst = row.iter().fold(worst, |worst, v| worst.max((v - expected.next().unwrap()).abs()));
        }
    }
    assert!(expected.next().is_none(), "not all logits were compared");
    worst
}

#[test]
fn folded_weights_give_the_references_logits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-B");
    let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();

    let averaged = Model::convert(&folder.join("checkpoint.ckpt"), &Options::default());
    let worst = largest_difference(&averaged, &golden, "diff.logits", 4);
    println!("EMA weights: largest difference {worst:e}");
    assert!(worst < 1e-4, "{worst}");

    let raw = Options { raw_weights: true, ..Options::default() };
    let raw = Model::convert(&folder.join("checkpoint.ckpt"), &raw);
    let worst = largest_difference(&raw, &golden, "diff.logits_raw_weights", 1);
    println!("raw weights: largest difference {worst:e}");
    assert!(worst < 1e-4, "{worst}");
}
