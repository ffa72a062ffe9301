//! `esolm devices`: what can run a model here.

use std::process::ExitCode;

use crate::output::{human_bytes, print};

/// List the devices that can run a model, with their memory. --device takes these names.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> esolm::Result<ExitCode> {
    for device in esolm::devices() {
        print(&format!(
            "{:10} {} ({} free of {})\n",
            device.name,
            device.description,
            human_bytes(device.memory_free as u64),
            human_bytes(device.memory_total as u64),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
