//! `stop`: the end of a node, waited for.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::exit::{DONE, Failure, Outcome};
use crate::out::Out;
use crate::whereabouts::Whereabouts;

/// End a running node; it drains before. Ends when its process is gone.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) fn execute(_: Args, at: &Whereabouts, out: &mut Out) -> Outcome {
    let stopping = at.connect()?.stop()?;
    let pid = i32::try_from(stopping.pid).ok().and_then(Pid::from_raw);
    // a process that can't be opened any more is gone
    if let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        loop {
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(Failure::io("wait for the node's process", cause.into())),
                Ok(_) => break,
            }
        }
    }
    out.show(&stopping, format_args!("stopped process {} of {}", stopping.pid, stopping.data.display()))?;
    Ok(DONE)
}
