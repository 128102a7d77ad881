//! The binary: parse, run, print the error chain, exit code.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
