//! What holds for Eso-LM (A), MDLM and AR alike.

use esolm::{GenerateParams, Prompt};

use crate::golden::{Golden, LENGTH, MASK};
use crate::runs::{diffusion, every_step};

#[test]
fn every_variant_completes_a_text_from_any_prompt() {
    for name in ["tiny-A", "mdlm-tiny", "ar-tiny"] {
        let [mut context, mut single] = Golden::open(name).contexts(3);
        let prompts = [Prompt::prefix(&[5, 6, 7]).unwrap(), Prompt::default(), Prompt::prefix(&[9]).unwrap()];
        let params = GenerateParams { alpha_0: 0.5, steps: 7, seed: 3, ignore_eos: true, ..diffusion() };
        context.generate(&prompts, &params, every_step).unwrap();
        for (sequence, prompt) in prompts.iter().enumerate() {
            let tokens = context.tokens(sequence).unwrap();
            assert_eq!(tokens.len(), LENGTH);
            assert!(tokens.iter().all(|&t| t != MASK));
            prompt.known.iter().for_each(|&(p, t)| assert_eq!(tokens[p as usize], t));
        }
        // The first sequence does not depend on its neighbours.
        single.generate(&prompts[..1], &params, every_step).unwrap();
        assert_eq!(single.tokens(0).unwrap(), context.tokens(0).unwrap(), "{name}");
        let hole = Prompt { known: vec![(3, 1)] };
        let infill = context.begin(&[hole], &params);
        assert_eq!(infill.is_ok(), name != "ar-tiny", "{name}");
    }
}
