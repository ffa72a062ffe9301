//! `esolm completion`: shell completion.

use std::process::ExitCode;

use clap_complete::{Shell, generate};

use crate::output::print;

/// Print a shell completion script. (`make install` installs them.)
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  esolm completion bash >~/.local/share/bash-completion/completions/esolm
  esolm completion zsh >~/.zfunc/_esolm
  esolm completion fish >~/.config/fish/completions/esolm.fish")]
pub struct Args {
    /// The shell.
    shell: Shell,
}

/// `command` is the whole command line.
pub fn run(args: &Args, mut command: clap::Command) -> esolm::Result<ExitCode> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "esolm", &mut script);
    print(String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
