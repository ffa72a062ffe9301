//! `esolm version`: what this build is.

use std::process::ExitCode;

use esolm::{Result, system_info};
use serde_json::json;

use crate::args::JsonArgs;
use crate::output::{print, print_json};

/// Show the version, what this build has, and what it was built for.
///
/// `esolm --version` prints the version alone.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  esolm version --json")]
pub struct Args {
    #[command(flatten)]
    json: JsonArgs,
}

/// The cargo features that this build was made with.
fn features() -> Vec<&'static str> {
    let all = [
        ("chat", cfg!(feature = "chat")),
        ("cuda", cfg!(feature = "cuda")),
        ("embed-model", cfg!(feature = "embed-model")),
        ("grammar", cfg!(feature = "grammar")),
        ("hub", cfg!(feature = "hub")),
        ("metal", cfg!(feature = "metal")),
        ("serve", cfg!(feature = "serve")),
        ("vulkan", cfg!(feature = "vulkan")),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.json.json {
        print_json(json!({
            "version": env!("CARGO_PKG_VERSION"), "features": features(), "system": std::env::consts::OS,
            "architecture": std::env::consts::ARCH, "system_info": system_info(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let features = if features().is_empty() { "none".to_owned() } else { features().join(" ") };
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let info = system_info();
    // What follows the version, part by part. The library's features are among the command's.
    let parts = info.split(" | ").skip(1).filter(|part| !part.starts_with("features: "));
    let parts: Vec<&str> = parts.collect();
    let version = env!("CARGO_PKG_VERSION");
    print(format_args!("esolm {version}\nfeatures: {features}\nsystem: {system}\n{}\n", parts.join("\n")))?;
    Ok(ExitCode::SUCCESS)
}
