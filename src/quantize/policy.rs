//! Which type each tensor gets.
//!
//! A policy without a type for the file leaves each tensor as it is, but for what rules say. Otherwise:
//!
//! 1. Norms and biases are always f32.
//! 2. A [`Rule`] names tensors by pattern and gives their exact type.
//! 3. A [`QuantConfig`], the layer policy of the crate `quantize-rs`, says which matrices stay f32 and how many bits the
//!    others get. Of ggml's types with that many bits, the one in the family of the file's type is used.
//!
//! If rows are not a multiple of that type's block, a type with smaller blocks replaces it.

use std::collections::BTreeMap;

pub use quantize_rs::QuantConfig;

use crate::error::{Error, Result};
use crate::gguf::TensorType;
use crate::memory::{copied, with_room};
use crate::model::{Config, TensorSpec};

/// The embedding and the output matrix. Rows of the embedding are looked up, so its bits cost no time; the output matrix
/// decides between tokens directly. By default neither has fewer than [`VOCABULARY_BITS`].
const VOCABULARY: [&str; 2] = ["token_embd.weight", "output.weight"];
/// As the output matrix in llama.cpp's k-quant mixtures. Other values have not been measured with esolm's models.
const VOCABULARY_BITS: u8 = 6;

/// A type for the tensors whose name matches a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pattern: String,
    ty: TensorType,
}

impl Rule {
    /// A rule for the tensors whose name matches `pattern`. `*` matches any text; `blk.last.` at the beginning is the last
    /// block.
    pub fn new(pattern: &str, ty: TensorType) -> Self {
        Self { pattern: pattern.to_owned(), ty }
    }

    /// A rule written as `PATTERN=TYPE`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it is not of that form, or the type does not exist.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((pattern, name)) = text.split_once('=').filter(|(pattern, _)| !pattern.is_empty()) else {
            return Err(Error::invalid(format!("'{text}' is not of the form PATTERN=TYPE")));
        };
        match TensorType::from_name(name) {
            Some(ty) => Ok(Self::new(pattern, ty)),
            None => {
                let names: Vec<&str> = TensorType::all().map(TensorType::name).collect();
                Err(Error::invalid(format!(
                    "'{text}': there is no type '{name}'; the types are {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// A copy.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn copied(&self) -> Result<Self> {
        Ok(Self { pattern: copied(&self.pattern)?, ty: self.ty })
    }

    fn matches(&self, name: &str, block_count: usize) -> bool {
        match self.pattern.strip_prefix("blk.last.") {
            Some(rest) => {
                let last = format!("blk.{}.", block_count.saturating_sub(1));
                name.strip_prefix(&last).is_some_and(|name| glob(rest, name))
            }
            None => glob(&self.pattern, name),
        }
    }
}

/// Whether `name` matches `pattern`, in which each `*` matches any text.
fn glob(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut rest = rest;
    while let Some((part, after)) = rest.split_once('*') {
        let Some((_, name_after)) = name.split_once(part) else { return false };
        (rest, name) = (after, name_after);
    }
    name.ends_with(rest)
}

/// Which type each tensor gets; see the module.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The type of the file: that of every matrix unless something below says otherwise. `None`: each keeps its own, unless a
    /// rule says otherwise.
    pub tensor_type: Option<TensorType>,
    /// Exact types by name. If several rules match, the last one applies.
    pub rules: Vec<Rule>,
    /// Matrices that stay f32, and bits by layer. A matrix with as many bits as `bits` gets `tensor_type`, any other the
    /// type with its bits (16, 8, 6, 5, 4, 3, 2) in the same family. The fields about channels, symmetry and calibration
    /// are ignored: they do not apply to ggml's blocks.
    pub layers: QuantConfig,
}

impl Policy {
    /// The default policy of a file of type `ty`: every matrix has that type, except that the embedding and the output
    /// matrix have at least six bits.
    pub fn new(ty: TensorType) -> Self {
        let mut layers = QuantConfig { bits: bits(ty), ..QuantConfig::default() };
        if layers.bits < VOCABULARY_BITS {
            layers.layer_bits.extend(VOCABULARY.map(|name| (name.to_owned(), VOCABULARY_BITS)));
        }
        Self { tensor_type: Some(ty), rules: Vec::new(), layers }
    }

    /// The policy that leaves every tensor as it is, for another layout or other defaults of the file. Not for new files.
    pub fn unchanged() -> Self {
        Self { tensor_type: None, rules: Vec::new(), layers: QuantConfig::default() }
    }

    /// The type of every tensor of a model, in the order of [`Config::tensors`], and a note for each group of matrices
    /// whose rows do not fit the type that the policy decided. `stored` are the types that they have now; of a new model none.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a rule or a layer that matches no matrix, for bits that no type has, and for a new model
    /// without a type.
    pub(crate) fn types(
        &self,
        config: &Config,
        stored: &[TensorType],
    ) -> Result<(Vec<TensorType>, Vec<String>)> {
        let specs = config.tensors()?;
        self.check(&specs, config.block_count)?;
        // Row length, decided type, type: block length, first tensor and number of others.
        let mut replaced: BTreeMap<(usize, &str, &str), (usize, &str, usize)> = BTreeMap::new();
        let mut types = with_room(specs.len())?;
        for (number, spec) in specs.iter().enumerate() {
            let wanted = self.wanted(spec, stored.get(number).copied(), config.block_count)?;
            let ty = fitting(wanted, &spec.dims);
            if let [row, _] = *spec.dims
                && ty != wanted
            {
                replaced
                    .entry((row, wanted.name(), ty.name()))
                    .and_modify(|(_, _, others)| *others += 1)
                    .or_insert((wanted.block_len(), &spec.name, 0));
            }
            types.push(ty);
        }
        let notes = replaced.into_iter().map(|((row, wanted, ty), (block, first, others))| {
            let names = match others {
                0 => format!("tensor '{first}' is"),
                _ => format!("'{first}' and {others} others are"),
            };
            format!("{names} {ty}, not {wanted}: rows of {row} are not a multiple of its blocks of {block}")
        });
        let notes = notes.collect();
        Ok((types, notes))
    }

    /// The type that the policy decides, whether or not rows fit its blocks.
    fn wanted(
        &self,
        spec: &TensorSpec,
        stored: Option<TensorType>,
        block_count: usize,
    ) -> Result<TensorType> {
        if spec.dims.len() == 1 {
            return Ok(TensorType::F32);
        }
        if let Some(rule) = self.rules.iter().rfind(|rule| rule.matches(&spec.name, block_count)) {
            return Ok(rule.ty);
        }
        let Some(file) = self.tensor_type else {
            return stored.ok_or_else(|| Error::invalid("a new model takes a type for its matrices"));
        };
        if !self.layers.should_quantize(&spec.name, spec.dims.iter().product()) {
            return Ok(TensorType::F32);
        }
        let wanted = self.layers.bits_for_layer(&spec.name);
        if wanted == self.layers.bits {
            return Ok(file);
        }
        of_bits(wanted, file)
            .ok_or_else(|| Error::invalid(format!("tensor '{}': no type has {wanted} bits", spec.name)))
    }

    /// Refuses rules and layers that match nothing, such as a misspelt name.
    fn check(&self, specs: &[TensorSpec], block_count: usize) -> Result<()> {
        let matrices = || specs.iter().filter(|spec| spec.dims.len() > 1);
        for rule in &self.rules {
            if matrices().any(|spec| rule.matches(&spec.name, block_count)) {
                continue;
            }
            let why = if specs.iter().any(|spec| rule.matches(&spec.name, block_count)) {
                "matches norms and biases only, which are always f32"
            } else {
                "matches no tensor of this model (`esolm inspect` lists them)"
            };
            return Err(Error::invalid(format!("'{}={}' {why}", rule.pattern, rule.ty.name())));
        }
        let layers = self.layers.excluded_layers.iter().chain(self.layers.layer_bits.keys());
        for name in layers {
            // Some models have one matrix for both ends of the vocabulary.
            let is_default = VOCABULARY.contains(&name.as_str());
            if !is_default && !specs.iter().any(|spec| spec.name == *name) {
                return Err(Error::invalid(format!(
                    "the layer policy names '{name}', which is not a tensor"
                )));
            }
        }
        Ok(())
    }
}

/// Bits of one element, without scales.
fn bits(ty: TensorType) -> u8 {
    use TensorType::*;
    match ty {
        F32 => 32,
        F16 | Bf16 => 16,
        Q8_0 => 8,
        Q6K => 6,
        Q5_0 | Q5_1 | Q5K => 5,
        Q4_0 | Q4_1 | Q4K | Iq4Nl => 4,
        Q3K => 3,
        Q2K => 2,
    }
}

/// The type with this number of bits in the family of `file`, the file's type.
fn of_bits(bits: u8, file: TensorType) -> Option<TensorType> {
    use TensorType::*;
    let small_blocks = file.block_len() == 32;
    Some(match bits {
        32 => F32,
        16 if file == Bf16 => Bf16,
        16 => F16,
        8 => Q8_0,
        6 => Q6K,
        5 if small_blocks => Q5_0,
        5 => Q5K,
        4 if file == Iq4Nl => Iq4Nl,
        4 if small_blocks => Q4_0,
        4 => Q4K,
        3 => Q3K,
        2 => Q2K,
        _ => return None,
    })
}

/// `wanted`, or if rows are not a multiple of its block the next larger type with blocks of 32, or else f16.
fn fitting(wanted: TensorType, dims: &[usize]) -> TensorType {
    use TensorType::*;
    let smaller_blocks = match wanted {
        Q2K | Q3K => Iq4Nl,
        Q4K => Q5_0,
        Q5K => Q5_1,
        Q6K => Q8_0,
        other => other,
    };
    let fits = |ty: &TensorType| ty.tensor_bytes(dims).is_some();
    [wanted, smaller_blocks].into_iter().find(fits).unwrap_or(F16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Architecture, Variant};

    fn config(width: usize, hidden: usize) -> Config {
        Config {
            variant: Variant::EsoB,
            block_length: 0,
            context_length: 16,
            embedding_length: width,
            block_count: 12,
            feed_forward_length: hidden,
            head_count: 1,
            architecture: Architecture::DIT,
            norm_epsilon: 1e-5,
            rope_freq_base: 1e4,
            vocab_size: 7,
            mask_token_id: 6,
            eos_token_id: None,
            other_eos_token_ids: Vec::new(),
            bos_token_id: None,
            prepend_token_id: None,
            needs_first_token: false,
            diffusion_only: false,
            train_alpha_0: None,
            defaults: crate::model::Defaults::NONE,
        }
    }

    fn type_of(policy: &Policy, config: &Config, name: &str) -> TensorType {
        let at = config.tensors().unwrap().iter().position(|spec| spec.name == name).unwrap();
        policy.types(config, &[]).unwrap().0[at]
    }

    #[test]
    fn star_matches_any_text() {
        for (pattern, name) in [
            ("a", "a"),
            ("*", ""),
            ("*", "abc"),
            ("a*", "abc"),
            ("*c", "abc"),
            ("a*c", "abc"),
            ("*b*", "abc"),
        ] {
            assert!(glob(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a", "ab"), ("b*", "abc"), ("*b", "abc"), ("ab*bc", "abc"), ("a*c*d", "abc")]
        {
            assert!(!glob(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn last_matching_rule_wins_and_blk_last_is_the_last_block() {
        let config = config(256, 512);
        let mut policy = Policy::new(TensorType::Q4K);
        for text in ["*=q3_k", "blk.last.*=q6_k", "blk.0.ffn_down.weight=bf16"] {
            policy.rules.push(Rule::parse(text).unwrap());
        }
        assert_eq!(type_of(&policy, &config, "blk.1.ffn_up.weight"), TensorType::Q3K);
        assert_eq!(type_of(&policy, &config, "token_embd.weight"), TensorType::Q3K);
        assert_eq!(type_of(&policy, &config, "blk.11.ffn_up.weight"), TensorType::Q6K);
        assert_eq!(type_of(&policy, &config, "blk.11.ffn_up.bias"), TensorType::F32);
        assert_eq!(type_of(&policy, &config, "blk.0.ffn_down.weight"), TensorType::Bf16);
    }

    #[test]
    fn output_matrix_keeps_six_bits_and_layers_can_be_set() {
        let config = config(256, 512);
        let mut policy = Policy::new(TensorType::Iq4Nl);
        assert_eq!(type_of(&policy, &config, "output.weight"), TensorType::Q6K);
        assert_eq!(type_of(&Policy::new(TensorType::Q8_0), &config, "output.weight"), TensorType::Q8_0);
        policy.layers.layer_bits.insert("blk.3.ffn_up.weight".into(), 5);
        policy.layers.excluded_layers.push("blk.2.ffn_up.weight".into());
        assert_eq!(type_of(&policy, &config, "blk.3.ffn_up.weight"), TensorType::Q5_0);
        assert_eq!(type_of(&policy, &config, "blk.2.ffn_up.weight"), TensorType::F32);
        assert_eq!(type_of(&policy, &config, "blk.1.ffn_up.weight"), TensorType::Iq4Nl);
        policy.layers.layer_bits.insert("blk.3.ffn_up.weight".into(), 7);
        assert!(policy.types(&config, &[]).is_err(), "seven bits");
        assert!(Policy::unchanged().types(&config, &[]).is_err(), "a new model without a type");
        for nothing in ["blk.12.*=q8_0", "blk.*.ffn_up.bias=f16", "token_embd=f16"] {
            let rules = vec![Rule::parse(nothing).unwrap()];
            let error = Policy { rules, ..Policy::new(TensorType::Q8_0) }.types(&config, &[]).unwrap_err();
            assert!(error.to_string().contains(nothing), "{error}");
        }
        for bad in ["x", "=q8_0", "x=q9"] {
            assert!(Rule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_embedding_that_is_the_output_matrix_keeps_six_bits() {
        let architecture = Architecture { tied_output: true, ..Architecture::QWEN3 };
        let tied = Config { architecture, ..config(256, 512) };
        let policy = Policy::new(TensorType::Q4K);
        assert_eq!(type_of(&policy, &tied, "token_embd.weight"), TensorType::Q6K);
        assert_eq!(type_of(&policy, &tied, "blk.0.ffn_gate.weight"), TensorType::Q4K);
    }

    #[test]
    fn rows_of_partial_blocks_get_a_larger_type_and_a_note() {
        let narrow = config(96, 384);
        let (types, notes) = Policy::new(TensorType::Q4K).types(&narrow, &[]).unwrap();
        assert!(types.contains(&TensorType::Q5_0) && types.contains(&TensorType::Q8_0));
        assert!(!types.contains(&TensorType::Q4K));
        assert!(notes.iter().any(|n| n.contains("rows of 96") && n.contains("q5_0, not q4_k")), "{notes:?}");
        let crooked = config(40, 40);
        let (types, notes) = Policy::new(TensorType::Q8_0).types(&crooked, &[]).unwrap();
        assert!(types.contains(&TensorType::F16) && notes.len() == 1, "{notes:?}");
        assert_eq!(Policy::new(TensorType::F16).types(&crooked, &[]).unwrap().1, Vec::<String>::new());
    }
}
