//! Which features a model has in this build.

use crate::model::{Config, Feature, Model, Variant};

impl Model {
    /// Whether this model, in this build of the library, can do something.
    pub fn supports(&self, feature: Feature) -> bool {
        let config = self.config();
        match feature {
            Feature::Diffusion | Feature::Adaptive | Feature::Holes => config.variant != Variant::Ar,
            Feature::Orders => !matches!(config.variant, Variant::Ar | Variant::WeDlm | Variant::Bd3Lm),
            Feature::ScoreDiffusion => !matches!(config.variant, Variant::Ar | Variant::WeDlm),
            Feature::Sequential | Feature::ScoreOrder => config.has_sequential_phase(),
            Feature::Extend | Feature::States => config.variant.keeps_cache(),
            Feature::Text => self.tokenizer().is_ok(),
            Feature::StepText => self.tokenizer().is_ok_and(|tokenizer| tokenizer.can_stream()),
            Feature::Grammar => {
                cfg!(feature = "grammar") && config.has_sequential_phase() && self.tokenizer().is_ok()
            }
            Feature::Chat => {
                let template =
                    self.metadata_value(Config::CHAT_TEMPLATE_KEY).and_then(|value| value.as_str());
                cfg!(feature = "chat") && template.is_some() && self.tokenizer().is_ok()
            }
            Feature::Lookahead => config.variant != Variant::Ar && config.has_sequential_phase(),
        }
    }
}
