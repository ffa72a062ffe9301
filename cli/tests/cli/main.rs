//! The `esolm` command as a person or a program meets it: output, messages, exit codes.
#![cfg(feature = "embed-model")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(target_os = "linux")]
mod address_space;
mod bench;
#[cfg(feature = "chat")]
mod chat;
#[cfg(all(feature = "chat", target_os = "linux"))]
mod chat_interrupts;
mod command_line;
mod dependencies;
mod documents;
mod errors;
mod evaluate;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod faults;
mod generate;
#[cfg(all(feature = "serve", target_os = "linux"))]
mod hostile_clients;
#[cfg(feature = "hub")]
mod hub;
mod install;
mod json;
mod layouts;
mod messages;
#[cfg(all(feature = "chat", feature = "hub", feature = "serve"))]
mod misuse;
mod models;
mod options;
#[cfg(target_os = "linux")]
mod outputs;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod processors;
mod sampling;
#[cfg(feature = "serve")]
mod serve;
mod shards;
#[cfg(target_os = "linux")]
mod streaming;
mod texts;
#[cfg(target_os = "linux")]
mod toolchains;
