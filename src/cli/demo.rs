//! stub
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Keep it up for your own clients; Ctrl-C ends it
    #[arg(long)]
    stay: bool,
}
pub(super) fn run(_arguments: &Arguments) -> super::exit::Ended {
    Ok(super::exit::Exit::Software)
}
