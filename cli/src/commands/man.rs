//! `esolm man`: the manual pages.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_mangen::Man;
use esolm::{Error, Result};

use crate::output::{io_error, print, write_file};

/// Print a manual page, or write all of them to a folder.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  esolm man | man -l -
  esolm man score | man -l -
  # All pages, as `make install` does
  esolm man --dir /usr/local/share/man/man1")]
pub struct Args {
    /// The command that the page is about. Default: esolm itself.
    command: Option<String>,
    /// Write the pages of all commands to this folder, which is made if it is not there.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

/// `command` is the whole command line.
pub fn run(args: &Args, mut command: clap::Command) -> Result<ExitCode> {
    command = command.disable_help_subcommand(true);
    // Gives subcommands their full names.
    command.build();
    if let Some(dir) = &args.dir {
        write_pages(&command, dir)?;
        return Ok(ExitCode::SUCCESS);
    }
    let page = match &args.command {
        None => page(command)?,
        Some(name) => {
            let none = || Error::InvalidArgument(format!("there is no command '{name}'"));
            page(command.find_subcommand(name).ok_or_else(none)?.clone())?
        }
    };
    print(&page)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes `esolm.1`, a page for each subcommand, and one for each other name of a subcommand, which leads to its page.
fn write_pages(command: &clap::Command, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|source| io_error(dir, source))?;
    let file = |name: &str| dir.join(format!("{name}.1"));
    write_file(&file(command.get_name()), &page(command.clone())?)?;
    for subcommand in command.get_subcommands() {
        let name = |of: &str| format!("{}-{of}", command.get_name());
        let own = name(subcommand.get_name());
        write_file(&file(&own), &page(subcommand.clone())?)?;
        for alias in subcommand.get_visible_aliases() {
            write_file(&file(&name(alias)), format_args!(".so man1/{own}.1\n"))?;
        }
    }
    Ok(())
}

/// A page, in roff.
fn page(command: clap::Command) -> Result<String> {
    let mut page = Vec::new();
    let source = concat!("esolm ", env!("CARGO_PKG_VERSION"));
    let rendered = Man::new(command).source(source).render(&mut page);
    rendered.map_err(|source| io_error(Path::new("manual page"), source))?;
    // Commands are to be copied: no blanks to fill a line, no hyphens to break words.
    let page = String::from_utf8_lossy(&page).replacen("\n.SH ", "\n.ad l\n.nh\n.SH ", 1);
    Ok(page.replace("\n.SH EXTRA\n", "\n.SH NOTES\n"))
}
