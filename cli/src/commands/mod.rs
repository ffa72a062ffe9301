//! The subcommands: each module has its options, `Args`, and its work, `run`.

pub mod bench;
#[cfg(feature = "chat")]
pub mod chat;
pub mod completion;
pub mod convert;
pub mod detokenize;
pub mod devices;
pub mod evaluate;
pub mod generate;
pub mod imatrix;
pub mod inspect;
pub mod man;
#[cfg(feature = "hub")]
pub mod pull;
pub mod quality;
pub mod quantize;
pub mod score;
#[cfg(feature = "serve")]
pub mod serve;
pub mod tokenize;
pub mod verify;
pub mod version;
