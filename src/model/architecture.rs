//! What a network consists of, as data. Loading, memory planning, the CPU's kernels, ggml's graph, quantizing and
//! synthetic models all read this.

/// The norm before attention, MLP and output matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// LayerNorm, with weight and bias.
    Layer,
    /// RMSNorm, with a weight.
    Rms,
}

/// The MLP of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mlp {
    /// `down gelu(up x + bias) + bias`, the tanh form of GELU.
    Gelu,
    /// `down (silu(gate x) * up x)`, without biases.
    SwiGlu,
}

/// What a network consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// The norm before attention, MLP and output matrix.
    pub norm: Norm,
    /// The MLP of a block.
    pub mlp: Mlp,
    /// Whether one matrix makes queries, keys and values. If not, there are three.
    pub fused_qkv: bool,
    /// Whether queries, keys and values have biases.
    pub attention_bias: bool,
    /// Whether each head's query and key pass an RMSNorm before they are rotated.
    pub qk_norm: bool,
    /// Whether the embedding is the output matrix, too.
    pub tied_output: bool,
    /// Whether the logits have a bias.
    pub output_bias: bool,
    /// Heads of keys and values, each of which serves equally many heads of queries (`None`: one each).
    pub kv_head_count: Option<usize>,
    /// Width of a head (`None`: the width divided by the number of heads).
    pub head_dim: Option<usize>,
}

impl Architecture {
    /// Eso-LM, MDLM and AR of the authors' code, with adaLN folded into the weights.
    pub const DIT: Self = Self {
        norm: Norm::Layer,
        mlp: Mlp::Gelu,
        fused_qkv: true,
        attention_bias: false,
        qk_norm: false,
        tied_output: false,
        output_bias: true,
        kv_head_count: None,
        head_dim: None,
    };

    /// Qwen2 and Qwen2.5.
    pub const QWEN2: Self = Self {
        norm: Norm::Rms,
        mlp: Mlp::SwiGlu,
        fused_qkv: false,
        attention_bias: true,
        qk_norm: false,
        tied_output: false,
        output_bias: false,
        kv_head_count: None,
        head_dim: None,
    };

    /// Qwen3.
    pub const QWEN3: Self = Self { attention_bias: false, qk_norm: true, ..Self::QWEN2 };

    /// The tensors of a block, in a model's order, which is that of the forward pass.
    pub(crate) fn block_tensors(&self) -> impl Iterator<Item = BlockTensor> + Clone + use<'_> {
        BlockTensor::ALL.into_iter().filter(|tensor| tensor.is_in(self))
    }
}

/// The widths of a network, which its tensors' shapes follow from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widths {
    /// Of the residual stream.
    pub(crate) stream: usize,
    /// Of the MLP's hidden layer.
    pub(crate) hidden: usize,
    /// Of the queries of all heads, of their keys, and of one head.
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) head: usize,
}

/// A tensor's shape: elements of a row, which are a vector's, and the rows of a matrix.
pub(crate) type Dims = (usize, Option<usize>);

/// A tensor of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockTensor {
    AttnNorm,
    AttnNormBias,
    Qkv,
    Query,
    Key,
    Value,
    QueryBias,
    KeyBias,
    ValueBias,
    QueryNorm,
    KeyNorm,
    AttnOutput,
    FfnNorm,
    FfnNormBias,
    Gate,
    Up,
    UpBias,
    Down,
    DownBias,
}

impl BlockTensor {
    const ALL: [Self; 19] = [
        Self::AttnNorm,
        Self::AttnNormBias,
        Self::Qkv,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::QueryBias,
        Self::KeyBias,
        Self::ValueBias,
        Self::QueryNorm,
        Self::KeyNorm,
        Self::AttnOutput,
        Self::FfnNorm,
        Self::FfnNormBias,
        Self::Gate,
        Self::Up,
        Self::UpBias,
        Self::Down,
        Self::DownBias,
    ];

    /// Its name behind `blk.N.`, by llama.cpp's conventions.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AttnNorm => "attn_norm.weight",
            Self::AttnNormBias => "attn_norm.bias",
            Self::Qkv => "attn_qkv.weight",
            Self::Query => "attn_q.weight",
            Self::Key => "attn_k.weight",
            Self::Value => "attn_v.weight",
            Self::QueryBias => "attn_q.bias",
            Self::KeyBias => "attn_k.bias",
            Self::ValueBias => "attn_v.bias",
            Self::QueryNorm => "attn_q_norm.weight",
            Self::KeyNorm => "attn_k_norm.weight",
            Self::AttnOutput => "attn_output.weight",
            Self::FfnNorm => "ffn_norm.weight",
            Self::FfnNormBias => "ffn_norm.bias",
            Self::Gate => "ffn_gate.weight",
            Self::Up => "ffn_up.weight",
            Self::UpBias => "ffn_up.bias",
            Self::Down => "ffn_down.weight",
            Self::DownBias => "ffn_down.bias",
        }
    }

    /// Whether blocks of this architecture have it.
    pub(crate) fn is_in(self, architecture: &Architecture) -> bool {
        match self {
            Self::AttnNorm | Self::AttnOutput | Self::FfnNorm | Self::Up | Self::Down => true,
            Self::AttnNormBias | Self::FfnNormBias => architecture.norm == Norm::Layer,
            Self::Qkv => architecture.fused_qkv,
            Self::Query | Self::Key | Self::Value => !architecture.fused_qkv,
            Self::QueryBias | Self::KeyBias | Self::ValueBias => architecture.attention_bias,
            Self::QueryNorm | Self::KeyNorm => architecture.qk_norm,
            Self::Gate => architecture.mlp == Mlp::SwiGlu,
            Self::UpBias | Self::DownBias => architecture.mlp == Mlp::Gelu,
        }
    }

    /// Its shape.
    pub(crate) fn dims(self, widths: &Widths) -> Dims {
        let &Widths { stream: d, hidden: f, queries: q, keys: kv, head } = widths;
        match self {
            Self::AttnNorm | Self::AttnNormBias | Self::FfnNorm | Self::FfnNormBias | Self::DownBias => {
                (d, None)
            }
            Self::Qkv => (d, Some(q + 2 * kv)),
            Self::Query => (d, Some(q)),
            Self::Key | Self::Value => (d, Some(kv)),
            Self::QueryBias => (q, None),
            Self::KeyBias | Self::ValueBias => (kv, None),
            Self::QueryNorm | Self::KeyNorm => (head, None),
            Self::AttnOutput => (q, Some(d)),
            Self::Gate | Self::Up => (d, Some(f)),
            Self::UpBias => (f, None),
            Self::Down => (f, Some(d)),
        }
    }
}
