//! `compat bench` (being built).

/// What to time.
#[derive(clap::Args)]
pub struct BenchArguments {}

/// Times the calls.
pub fn bench(_arguments: &BenchArguments) -> anyhow::Result<bool> {
    Ok(true)
}
