//! `esolm devices`: what can run a model here.

use std::process::ExitCode;

use esolm::{DeviceInfo, DeviceKind};
use serde_json::json;

use crate::args::JsonArgs;
use crate::output::{human_bytes, print, print_json};

/// List the devices that can run a model, with their memory. --device takes these names.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  esolm devices
  # On one of them, by its name
  esolm generate -p \"Once upon a time\" --device cpu")]
pub struct Args {
    #[command(flatten)]
    json: JsonArgs,
}

pub fn run(args: &Args) -> esolm::Result<ExitCode> {
    if args.json.json {
        let device = |device: &DeviceInfo| {
            json!({ "name": device.name, "description": device.description, "kind": kind(device.kind),
                    "memory_free_bytes": device.memory_free, "memory_total_bytes": device.memory_total })
        };
        let devices: Vec<_> = esolm::devices().iter().map(device).collect();
        print_json(json!({ "devices": devices }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for device in esolm::devices() {
        print(format_args!(
            "{:10} {} ({} free of {})\n",
            device.name,
            device.description,
            human_bytes(device.memory_free as u64),
            human_bytes(device.memory_total as u64),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Cpu => "cpu",
        DeviceKind::Gpu => "gpu",
        DeviceKind::Other => "other",
    }
}
