//! The command line. Exit codes: 0, 1 failed, 2 usage, 78 bad config (sysexits' EX_CONFIG).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::control::{self, Origin};
use crate::app::{demo, models, sandbox, say, serve, translate};
use crate::config::{Config, Fates, Kind, Problem};
use crate::llm::dialects::Dialect;
use crate::llm::parameters::Parameters;
use crate::llm::request::{Ask, Surface};
use crate::net::wish_of;
use crate::route::{self, Judge, Wish};

/// An LLM gateway: a failing provider is replaced until the first byte, and told honestly after it.
#[derive(Parser)]
#[command(name = "firstbyte", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients. Without a config file: the providers whose key variables are set
    /// (OPENAI_API_KEY, ANTHROPIC_API_KEY and the like), or, with none set, the built-in sandbox providers.
    Serve {
        /// The config file (TOML).
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// A Unix socket by which this process takes the listeners of one that was started with the same
        /// path, and hands them to the next one. No connection is lost in between.
        #[arg(long, value_name = "PATH")]
        handover: Option<PathBuf>,
    },
    /// Show a fallback happening: sandbox providers, a failing primary, a streamed answer, its ledger.
    Demo {
        /// End after the request instead of leaving the gateway running.
        #[arg(long)]
        once: bool,
    },
    /// Run the built-in providers alone; they misbehave as the model's name says.
    #[command(after_help = sandbox::GRAMMAR)]
    Sandbox {
        /// Where the first provider listens; the others take the ports that follow (port 0: any).
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9101")]
        listen: SocketAddr,
        /// How many providers: a, b, c, ...
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=26))]
        providers: u8,
    },
    /// Check a config file and list everything that is wrong with it.
    Check {
        /// The config file (TOML).
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show who would be tried for a request, in what order and why. Nothing is sent.
    Explain {
        /// The config file (TOML); without it the same as `serve` would use.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The model to ask for.
        #[arg(required_unless_present = "request", conflicts_with = "request")]
        model: Option<String>,
        /// A file with the request's JSON body instead; `-` reads standard input.
        #[arg(long, value_name = "FILE")]
        request: Option<PathBuf>,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// List what the built-in catalogue knows: prices in US dollars for a million tokens, window, output
    /// limit, abilities, and where that stands.
    Models {
        /// Only this vendor's.
        #[arg(long, value_name = "VENDOR")]
        provider: Option<String>,
        /// Only those that may do all of this, as in tools,image. A ? marks what is not known and assumed.
        #[arg(long, value_name = "ABILITIES", value_delimiter = ',')]
        needs: Vec<String>,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Translate a provider's body (standard input) into what a client would get.
    Translate {
        /// The provider.
        #[arg(long, value_name = "PROVIDER")]
        from: String,
        /// Its API; by default its usual one.
        #[arg(long, value_name = "API")]
        api: Option<String>,
        /// The client's dialect.
        #[arg(long, value_name = "DIALECT", default_value = "chat", value_parser = dialect)]
        to: Dialect,
        /// The body is a whole JSON answer, not a stream.
        #[arg(long)]
        no_stream: bool,
        /// The HTTP status that it came with.
        #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
        status: u16,
    },
    /// Print the version.
    Version,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output, usage errors to standard error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match cli.command {
        Command::Serve { config, handover } => serve::run(config.as_deref(), handover.as_deref()),
        Command::Demo { once } => demo::run(once),
        Command::Sandbox { listen, providers } => serve::sandbox(listen, providers),
        Command::Check { config } => check(&config),
        Command::Explain { config, model, request, json } => {
            explain(config.as_deref(), model, request.as_deref(), json)
        }
        Command::Models { provider, needs, json } => models::run(provider.as_deref(), &needs, json),
        Command::Translate { from, api, to, no_stream, status } => {
            translate::run(&from, api.as_deref(), to, !no_stream, status)
        }
        Command::Version => {
            say::line(concat!("firstbyte ", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop { code, why }) => {
            say::log(&why);
            ExitCode::from(code)
        }
    }
}

fn dialect(name: &str) -> Result<Dialect, String> {
    let names = || Dialect::ALL.map(Dialect::name).join(", ");
    let found = Dialect::ALL.into_iter().find(|dialect| dialect.name() == name);
    found.ok_or_else(|| format!("the dialects are {}", names()))
}

/// Why a command did not come to its end.
pub struct Stop {
    /// The exit code.
    code: u8,
    /// What happened, where, and what to do.
    why: String,
}

impl Stop {
    /// Exit code 1.
    pub fn failed(why: impl Into<String>) -> Stop {
        Stop { code: 1, why: why.into() }
    }

    /// Exit code 78, with every problem.
    pub fn config(origin: &str, problems: &[Problem]) -> Stop {
        let count = problems.len();
        let things = if count == 1 { "problem" } else { "problems" };
        let why = format!("{count} {things} in {origin}:\n{}", control::lines(problems));
        Stop { code: 78, why }
    }
}

/// A config to serve: of a file, of the environment, or none at all.
///
/// # Errors
/// What is wrong with the file.
pub fn configured(path: Option<&Path>) -> Result<Option<(Config, Origin)>, Stop> {
    match path {
        Some(path) => {
            let config = control::load(path)
                .map_err(|found| Stop::config(&path.display().to_string(), &found))?;
            Ok(Some((config, Origin::File(path.to_owned()))))
        }
        None => {
            let config = crate::config::from_env(&control::lookup(None))
                .map_err(|found| Stop::config("the environment", &found))?;
            Ok(config.map(|config| (config, Origin::Environment)))
        }
    }
}

fn check(path: &Path) -> Result<(), Stop> {
    let origin = path.display().to_string();
    let config = control::load(path).map_err(|found| Stop::config(&origin, &found))?;
    let compiled = control::compile(&config, None);
    let table = compiled.map_err(|found| Stop::config(&origin, &found))?.table;
    say::line(&format!(
        "{origin} is good: {} providers, {} models, {} routes, {} targets",
        config.providers.len(),
        config.models.len(),
        config.routes.len(),
        table.targets.len(),
    ));
    Ok(())
}

fn explain(
    path: Option<&Path>,
    model: Option<String>,
    request: Option<&Path>,
    json: bool,
) -> Result<(), Stop> {
    let config = match configured(path)? {
        Some((config, _)) => config,
        None => {
            // The addresses are not known before the sandbox runs, and nothing is sent to them here.
            let nowhere = [SocketAddr::from(([127, 0, 0, 1], 1)), ([127, 0, 0, 1], 2).into()];
            serve::sandbox_config(&nowhere)?
        }
    };
    let table = route::compile(&config, None).map_err(|found| Stop::config("config", &found))?;
    let (ask, body) = match request {
        Some(file) => {
            let body = read_request(file)?;
            let ask = Ask::read(Surface::Explain, &body)
                .map_err(|fault| Stop::failed(format!("{}: {}", file.display(), fault.message)))?;
            (ask, body)
        }
        None => {
            let model = model.unwrap_or_default().into();
            (Ask { model, stream: true, ..Ask::default() }, Vec::new())
        }
    };
    let parameters = Parameters::of(&ask, &body, true);
    let judge = |kind: Kind, model: &str| match &parameters {
        Some(parameters) => parameters.fates(kind, model),
        None => Fates::new(),
    };
    let wish = Wish { judge: Judge(Some(&judge)), ..wish_of(&ask, None) };
    let explained = route::explain(&table, &wish, 0, crate::rt::uring::now());
    if json {
        say::line(&format!("{:#}", explained.to_json()));
    } else {
        say::text(&explained.to_text());
    }
    match explained.plan {
        Ok(_) => Ok(()),
        Err(_) => Err(Stop::failed("nothing would be tried")),
    }
}

fn read_request(file: &Path) -> Result<Vec<u8>, Stop> {
    let read = if file == Path::new("-") {
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut body).map(|_| body)
    } else {
        std::fs::read(file)
    };
    read.map_err(|error| Stop::failed(format!("{}: {error}", file.display())))
}
