//! The option of how texts become tokens.

use esolm::TokenizeOptions;

/// How texts become tokens.
#[derive(clap::Args, Clone, Copy)]
pub struct TextArgs {
    /// Read special tokens that are written out in the text, such as <|endoftext|>, as these tokens, and [MASK] as the mask
    /// (in a template: a gap of one token). Otherwise they are characters as all others.
    #[arg(long)]
    pub special: bool,
}

impl TextArgs {
    /// The library's options, for a text that goes on from another or does not.
    pub fn options(self, continues: bool) -> TokenizeOptions {
        TokenizeOptions { parse_special: self.special, continues }
    }
}
