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
        ("cuda", cfg!(feature = "cuda")),
        ("embed-model", cfg!(feature = "embed-model")),
        ("grammar", cfg!(feature = "grammar")),
        ("hub", cfg!(feature = "hub")),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

/// The instruction sets that the compiler was allowed to use anywhere. (The kernels also have others, and choose at run
/// time.)
fn instructions() -> Vec<&'static str> {
    let all = [
        ("sse4.2", cfg!(target_feature = "sse4.2")),
        ("avx", cfg!(target_feature = "avx")),
        ("avx2", cfg!(target_feature = "avx2")),
        ("fma", cfg!(target_feature = "fma")),
        ("f16c", cfg!(target_feature = "f16c")),
        ("avx512f", cfg!(target_feature = "avx512f")),
        ("avx512vnni", cfg!(target_feature = "avx512vnni")),
        ("neon", cfg!(target_feature = "neon")),
        ("dotprod", cfg!(target_feature = "dotprod")),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.json.json {
        print_json(json!({
            "version": env!("CARGO_PKG_VERSION"), "features": features(), "system": std::env::consts::OS,
            "architecture": std::env::consts::ARCH, "instructions": instructions(),
            "system_info": system_info(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = |names: Vec<&str>| if names.is_empty() { "none".into() } else { names.join(" ") };
    print(&format!(
        "esolm {}\nfeatures      {}\nsystem        {} {}\ninstructions  {}\nsystem info   {}\n",
        env!("CARGO_PKG_VERSION"),
        list(features()),
        std::env::consts::OS,
        std::env::consts::ARCH,
        list(instructions()),
        system_info(),
    ))?;
    Ok(ExitCode::SUCCESS)
}
