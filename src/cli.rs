//! The command line: one file a subcommand.
//!
//! *Takes* arguments. *Gives* output on stdout, findings and logs on stderr, and an
//! exit code: 0 fine, 1 findings, 2 usage, 3 something could not be reached.
//! *Invariants*: what is printed as JSON or YAML is documented in `status`. *To add
//! one*: a file with its `Args` and `run`, and a row in [`Command`].

mod bootstrap;
mod completion;
mod crds;
mod echo;
mod engine;
mod offline;
mod output;
mod query;
mod status;
mod translate;
mod up;
mod validate;
mod vip;

use clap::{Parser, Subcommand};
pub use output::Exit;
use std::process::ExitCode;

/// Open application delivery for Kubernetes: VIPs, DNS and routes from ordinary
/// manifests, served by stock Envoy.
#[derive(Parser)]
#[command(name = "tidegate", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 fine, 1 findings (or something differs), 2 usage, 3 cannot reach or start.";

#[derive(Subcommand)]
enum Command {
    Up(up::UpArgs),
    Serve(up::ServeArgs),
    Translate(translate::TranslateArgs),
    Validate(validate::ValidateArgs),
    Status(status::StatusArgs),
    Vip(vip::VipArgs),
    Engine(engine::EngineArgs),
    Bootstrap(bootstrap::BootstrapArgs),
    Echo(echo::EchoArgs),
    Crds(crds::CrdsArgs),
    Completion(completion::CompletionArgs),
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let outcome = match command {
        Command::Up(args) => up::up(args),
        Command::Serve(args) => up::serve(args),
        Command::Translate(args) => translate::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Vip(args) => vip::run(args),
        Command::Engine(args) => engine::run(args),
        Command::Bootstrap(args) => bootstrap::run(&args),
        Command::Echo(args) => echo::run(args),
        Command::Crds(args) => crds::run(&args),
        Command::Completion(args) => completion::run(&args),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => output::explain(&failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// The commands of ours in a help text, as a shell would hand them over.
    fn examples(help: &str) -> Vec<Vec<String>> {
        let whole = help.replace("\\\n", " ");
        let of_line = |line: &str| {
            let command = &line[line.find("tidegate ")?..];
            let end = command.find(['>', '|', ')']).unwrap_or(command.len());
            Some(command[..end].split_whitespace().map(str::to_owned).collect())
        };
        whole.lines().filter(|line| line.starts_with("  ")).filter_map(of_line).collect()
    }

    #[test]
    fn examples_of_every_subcommand_parse() {
        for subcommand in Arguments::command().get_subcommands() {
            let name = subcommand.get_name();
            let help = subcommand.get_after_help().expect("it has examples").to_string();
            let examples = examples(&help);
            assert!(!examples.is_empty(), "{name} has no examples");
            for example in examples {
                assert_eq!(example[1], name, "an example of another subcommand");
                if let Err(why) = Arguments::try_parse_from(&example) {
                    panic!("{example:?}: {why}");
                }
            }
        }
    }

    /// What systemd runs is a command of ours.
    #[test]
    fn the_unit_of_an_engine_parses() {
        let unit = include_str!("../envoy/tidegate-engine.service").replace("${TIDEGATE_SERVER}", "a.test:1");
        let start =
            unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("it starts something");
        let Arguments { command } =
            Arguments::try_parse_from(start.split_whitespace()).unwrap_or_else(|why| panic!("{why}"));
        assert!(matches!(command, Command::Engine(_)));
    }
}
