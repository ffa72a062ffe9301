//! `esolm completion`: shell completion.

use std::process::ExitCode;

use clap_complete::{Shell, generate};

use crate::output::print;

/// Print a shell completion script.
///
/// For bash: `esolm completion bash > ~/.local/share/bash-completion/completions/esolm`.
#[derive(clap::Args)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

/// `command` is the whole command line.
pub fn run(args: &Args, mut command: clap::Command) -> esolm::Result<ExitCode> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "esolm", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
