//! The names of tensors: what wrappers put before them, and which are the network's own.

use crate::error::Result;
use crate::memory::append;

/// What wrappers put before a module's names: torch.compile, data parallel and DeepSpeed's engine, the training code's
/// module and the backbone in it.
const PREFIXES: [&str; 5] = ["_orig_mod.", "module.", "_forward_module.", "model.", "backbone."];

/// The top modules of the network. Everything else in a checkpoint belongs to the training code.
const MODULES: [&str; 4] = ["vocab_embed.", "sigma_map.", "blocks.", "output_layer."];

/// The name without the prefixes of wrappers, which nest in any order.
pub(super) fn without_prefixes(mut name: &str) -> &str {
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}

/// Removes the prefixes of wrappers.
pub(super) fn remove_prefixes(name: &mut String) {
    name.drain(..name.len() - without_prefixes(name).len());
}

/// Whether a name without prefixes is that of a parameter of the network, and not of a buffer or of the training code.
pub(super) fn is_parameter(name: &str) -> bool {
    MODULES.iter().any(|module| name.starts_with(module))
}

/// The first few of these names, for a message; `None` if there are none.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
pub(super) fn some_of<'a>(names: impl Iterator<Item = &'a str>) -> Result<Option<String>> {
    /// Names that are shown.
    const SHOWN: usize = 3;
    let (mut first, mut count) = ([None; SHOWN], 0usize);
    for name in names {
        count += 1;
        // In order, with `None` behind all names.
        let mut next = Some(name);
        for place in &mut first {
            if place.is_none() || *place > next {
                std::mem::swap(place, &mut next);
            }
        }
    }
    let mut text = String::new();
    for name in first.into_iter().flatten() {
        let before = if text.is_empty() { "" } else { ", " };
        append(&mut text, format_args!("{before}'{name}'"))?;
    }
    if count > SHOWN {
        append(&mut text, format_args!(" and {} more", count - SHOWN))?;
    }
    Ok(Some(text).filter(|_| count > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_are_shown_in_order() {
        let shown = |names: &[&'static str]| some_of(names.iter().copied()).unwrap();
        assert_eq!(shown(&[]), None);
        assert_eq!(shown(&["b", "a"]).as_deref(), Some("'a', 'b'"));
        assert_eq!(shown(&["d", "b", "e", "a", "c"]).as_deref(), Some("'a', 'b', 'c' and 2 more"));
    }

    #[test]
    fn prefixes_are_removed_in_any_nesting() {
        for name in [
            "blocks.0.norm1.weight",
            "backbone.blocks.0.norm1.weight",
            "_orig_mod.backbone.blocks.0.norm1.weight",
            "backbone._orig_mod.blocks.0.norm1.weight",
            "_forward_module.module.model.backbone._orig_mod.module.blocks.0.norm1.weight",
        ] {
            assert_eq!(without_prefixes(name), "blocks.0.norm1.weight");
        }
        assert_eq!(without_prefixes("teacher.model.x"), "teacher.model.x");
        assert!(is_parameter("blocks.0.norm1.weight") && !is_parameter("rotary_emb.inv_freq"));
    }
}
