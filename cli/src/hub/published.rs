//! The published models whose names are known, and what their repositories do not say (docs/models.md has where each is named).

use esolm::Variant;

/// A model by its name.
pub struct Published {
    pub repository: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// The variant, where its configuration leaves it open.
    variant: Option<Variant>,
    /// The repository with its tokenizer, where its own may have none.
    tokenizer: Option<&'static str>,
}

/// The tokenizer of all models that were trained on OpenWebText.
const GPT2: Option<&str> = Some("openai-community/gpt2");

impl Published {
    const fn complete(repository: &'static str, what: &'static str) -> Self {
        Self { repository, what, variant: None, tokenizer: None }
    }

    const fn on_openwebtext(repository: &'static str, what: &'static str, variant: Option<Variant>) -> Self {
        Self { repository, what, variant, tokenizer: GPT2 }
    }

    /// The model of this name.
    pub fn named(repository: &str) -> Option<&'static Self> {
        PUBLISHED.iter().find(|model| model.repository == repository)
    }

    /// The variant, if its configuration may leave it open.
    pub fn variant(&self) -> Option<Variant> {
        self.variant
    }

    /// The repository with the tokenizer of a model that has these files, if it is none of them.
    pub fn missing_tokenizer(&self, files: &[String]) -> Option<&'static str> {
        let is_own = |file: &String| ["tokenizer.json", "vocab.json"].contains(&file.as_str());
        self.tokenizer.filter(|_| !files.iter().any(is_own))
    }
}

/// All of them.
pub static PUBLISHED: [Published; 14] = [
    Published::complete("tencent/WeDLM-7B-Base", "WeDLM from Qwen2.5"),
    Published::complete("tencent/WeDLM-7B-Instruct", "WeDLM from Qwen2.5"),
    Published::complete("tencent/WeDLM-8B-Base", "WeDLM from Qwen3"),
    Published::complete("tencent/WeDLM-8B-Instruct", "WeDLM from Qwen3"),
    Published::complete("Qwen/Qwen3-0.6B", "autoregressive"),
    Published::complete("Qwen/Qwen3-8B", "autoregressive"),
    Published::complete("Qwen/Qwen2.5-0.5B", "autoregressive"),
    Published::complete("Qwen/Qwen2.5-7B", "autoregressive"),
    Published::on_openwebtext(
        "sahoo-diffusion/Eso-LM-B-alpha-1",
        "Eso-LM (B), alpha_0 = 1",
        Some(Variant::EsoB),
    ),
    Published::on_openwebtext(
        "sahoo-diffusion/Eso-LM-B-alpha-0_25",
        "Eso-LM (B), alpha_0 = 0.25",
        Some(Variant::EsoB),
    ),
    Published::on_openwebtext("kuleshov-group/mdlm-owt", "MDLM", None),
    Published::on_openwebtext("kuleshov-group/bd3lm-owt-block_size4", "BD3-LM", None),
    Published::on_openwebtext("kuleshov-group/bd3lm-owt-block_size8", "BD3-LM", None),
    Published::on_openwebtext("kuleshov-group/bd3lm-owt-block_size16", "BD3-LM", None),
];
