//! What a model can be asked for.

/// Something that some models, or some builds of the library, can do and others cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Feature {
    /// Diffusion: several tokens in a step. All but autoregressive models.
    Diffusion = 1,
    /// Writing one by one, left to right, what diffusion has left or all of the text. All but MDLM, BD3-LM, and Eso-LM (A) that
    /// was trained for diffusion alone.
    Sequential = 2,
    /// Orders other than left to right. Eso-LM and MDLM.
    Orders = 3,
    /// Adaptive steps ([`Adaptive`](crate::Adaptive)). All but autoregressive models.
    Adaptive = 4,
    /// Known tokens behind unknown ones: templates, suffixes. All but autoregressive models.
    Holes = 5,
    /// [`Context::extend`](crate::Context::extend): models that keep keys and values between steps, all but Eso-LM (A) and MDLM.
    Extend = 6,
    /// Saved states ([`Context::save`](crate::Context::save)): as [`Feature::Extend`].
    States = 7,
    /// The likelihood of a text in an order. All with [`Feature::Sequential`].
    ScoreOrder = 8,
    /// The diffusion bound of a text's likelihood. All but autoregressive models and WeDLM.
    ScoreDiffusion = 9,
    /// Text: the model's file has a tokenizer that can be used. (Asking makes it.)
    Text = 10,
    /// The text of each step, and stop strings ([`Tokenizer::can_stream`](crate::Tokenizer::can_stream)).
    StepText = 11,
    /// Regular expressions and JSON schemas ([`Constraints::grammar`](crate::Constraints)): text, in a build with the cargo
    /// feature `grammar`.
    Grammar = 12,
    /// Several tokens in a pass where a step writes one ([`GenerateParams::lookahead`](crate::GenerateParams::lookahead)):
    /// WeDLM, and Eso-LM but for (A) that was trained for diffusion alone.
    Lookahead = 13,
    /// Conversations ([`ChatTemplate::of_model`](crate::ChatTemplate::of_model)): text, and a chat template in the model's file, in
    /// a build with the cargo feature `chat`. (A template that is given serves other models, too.)
    Chat = 14,
}

impl Feature {
    /// All features.
    pub const ALL: [Self; 14] = [
        Self::Diffusion,
        Self::Sequential,
        Self::Orders,
        Self::Adaptive,
        Self::Holes,
        Self::Extend,
        Self::States,
        Self::ScoreOrder,
        Self::ScoreDiffusion,
        Self::Text,
        Self::StepText,
        Self::Grammar,
        Self::Lookahead,
        Self::Chat,
    ];

    /// A short name, such as `states`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusion => "diffusion",
            Self::Sequential => "sequential",
            Self::Orders => "orders",
            Self::Adaptive => "adaptive",
            Self::Holes => "holes",
            Self::Extend => "extend",
            Self::States => "states",
            Self::ScoreOrder => "score_order",
            Self::ScoreDiffusion => "score_diffusion",
            Self::Text => "text",
            Self::StepText => "step_text",
            Self::Grammar => "grammar",
            Self::Lookahead => "lookahead",
            Self::Chat => "chat",
        }
    }
}
