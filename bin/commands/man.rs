//! `man`: the manual, from the same grammar as the help.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::exit::{DONE, Failure, Outcome};
use crate::out::Out;

/// Print the manual page, or write all of them to a folder.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A folder for towline.1, towline-append.1 and so on
    folder: Option<PathBuf>,
}

pub(crate) fn execute(args: Args, out: &mut Out) -> Outcome {
    let Some(folder) = args.folder else {
        let mut page = Vec::new();
        Man::new(crate::Cli::command()).render(&mut page).map_err(|cause| Failure::io("write the manual", cause))?;
        out.bytes(&page)?;
        return Ok(DONE);
    };
    let failed = |cause| Failure::io(format_args!("write manual pages to {}", folder.display()), cause);
    std::fs::create_dir_all(&folder).map_err(failed)?;
    clap_mangen::generate_to(crate::Cli::command(), &folder).map_err(failed)?;
    Ok(DONE)
}
