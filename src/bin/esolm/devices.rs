//! `esolm devices`: what can compute here.

use std::process::ExitCode;

use crate::model_file::human_bytes;

/// List the devices of this build and machine, with their memory. Their names are what --device takes.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> esolm::Result<ExitCode> {
    for device in esolm::devices() {
        crate::print(&format!(
            "{:10} {} ({} free of {})\n",
            device.name,
            device.description,
            human_bytes(device.memory_free as u64),
            human_bytes(device.memory_total as u64),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
