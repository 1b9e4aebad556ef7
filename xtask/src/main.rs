//! Project tasks: `cargo xtask --help`.
//!
//! One module a task. Nothing here is part of the server.

use clap::Parser;

mod attack;
mod bench;
mod crash;
mod floor;
mod fuzz;
mod guard;
mod handshakes;
mod load;
mod memory;
mod mutants;
mod release;
mod schema;
mod server;
mod sim;
mod soak;
mod tls_tunnel;
mod xmpp;

/// Project tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Processor time of the server for a TLS handshake, full and resumed.
    Handshakes(handshakes::Args),
    /// kill -9 of the server in mid-load, over and over; nothing accepted may be missing.
    Kill(crash::KillArgs),
    /// Clients that mean harm, at full size.
    Attack(attack::Args),
    /// Fuzzing of everything that reads bytes from outside.
    Fuzz(fuzz::Args),
    /// Speed and size of the server, each figure beside its floor in the same run.
    Bench(bench::Args),
    /// The bare relay that benchmarks compare with; they start it themselves.
    #[command(hide = true)]
    FloorRelay(floor::Args),
    /// What encrypts for clients that cannot; benchmarks start it themselves.
    #[command(hide = true)]
    TlsTunnel(tls_tunnel::Args),
    /// Resident memory of the server for each idle connection.
    Memory(memory::Args),
    /// Power cuts in mid-load, over and over; nothing accepted may be missing. Needs root.
    Powercut(crash::PowerCutArgs),
    /// Deliberate breaks of the logic, and which test finds each.
    Mutants(mutants::MutantsArgs),
    /// JSON Schemas of the frames, from the Rust types.
    Schema(schema::SchemaArgs),
    /// The delivery simulation over many seeds, or one seed again.
    Sim(sim::SimArgs),
    /// Panics in one in a hundred messages, under load, for minutes.
    Soak(soak::SoakArgs),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Handshakes(args) => handshakes::run(&args),
        Task::Kill(args) => crash::kill(&args),
        Task::Attack(args) => attack::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::FloorRelay(args) => floor::run(&args),
        Task::TlsTunnel(args) => tls_tunnel::run(&args),
        Task::Memory(args) => memory::run(&args),
        Task::Powercut(args) => crash::powercut(args),
        Task::Mutants(args) => mutants::run(&args),
        Task::Schema(args) => schema::run(&args),
        Task::Sim(args) => sim::run(&args),
        Task::Soak(args) => soak::run(&args),
    }
}
