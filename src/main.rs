//! The `lazaret` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lazaret::cli::main()
}
