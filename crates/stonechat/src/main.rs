//! The binary.

use std::process::ExitCode;

/// Messages are born on one thread and die on another, which glibc's allocator pays for:
/// see "Choices" in docs/performance.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    stonechat::main()
}
