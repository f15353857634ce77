//! The ways to run green threads and Tokio in one program.

use std::fmt;
use std::process::ExitCode;

use tokio::runtime;

/// A way to run green threads and Tokio in one program.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// On the hub of this name. The hub `tokio`, the implicit mode, runs a Tokio runtime while it waits.
    Hub(&'static str),
    /// The explicit mode: in a program that runs a current-thread runtime of Tokio.
    Explicit,
    /// The explicit mode in a multi-threaded runtime of Tokio, whose tasks run on other OS threads.
    ExplicitThreads,
    /// On the hub of this name, beside a runtime of Tokio on another OS thread.
    Beside(&'static str),
}

impl Way {
    /// The implicit mode.
    pub const IMPLICIT: Way = Way::Hub("tokio");

    /// Runs `program` where it may block as straight-line code does, and returns what it returns.
    ///
    /// # Panics
    ///
    /// Panics if the hub or the runtime cannot be built, or if `program` panics.
    pub fn run<T: 'static>(self, program: impl FnOnce() -> T + 'static) -> T {
        match self {
            Way::Hub(name) => {
                greenhub::use_hub(name).expect("the hub is available");
                // Builds the hub now, so that code before the first wait finds its runtime.
                let _hub = greenhub::get_hub();
                program()
            }
            Way::Explicit => run_explicitly(runtime::Builder::new_current_thread(), program),
            Way::ExplicitThreads => run_explicitly(runtime::Builder::new_multi_thread(), program),
            Way::Beside(name) => {
                let runtime = build(runtime::Builder::new_multi_thread());
                // Entered beneath every switch, so that the green threads find the runtime in their polls.
                let _context = runtime.enter();
                greenhub::use_hub(name).expect("the hub is available");
                program()
            }
        }
    }

    /// Returns the way that the first argument of the program names. The implicit mode is the default.
    ///
    /// # Errors
    ///
    /// Returns a message if there is no such way, or a second argument.
    pub fn from_arguments() -> Result<Way, String> {
        let mut arguments = std::env::args().skip(1);
        let way = arguments.next().map_or(Ok(Way::IMPLICIT), |name| Way::named(&name))?;
        arguments.next().map_or(Ok(way), |more| Err(format!("unexpected argument {more:?}: one way at a time")))
    }

    /// Returns the way of this name.
    fn named(name: &str) -> Result<Way, String> {
        match name {
            "explicit" => Ok(Way::Explicit),
            "explicit-threads" => Ok(Way::ExplicitThreads),
            "beside" => Ok(Way::Beside(greenhub::get_default_hub().map_err(|error| error.to_string())?.name)),
            _ => {
                let hubs = ["tokio", "epoll", "kqueue", "poll", "select"];
                let hub = hubs.into_iter().find(|hub| *hub == name);
                hub.map(Way::Hub).ok_or_else(|| {
                    format!(
                        "no way {name:?}: it is `explicit`, `explicit-threads`, `beside`, or one of the hubs {}",
                        hubs.join(", ")
                    )
                })
            }
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Hub(name) => write!(f, "on the hub {name}"),
            Way::Explicit => f.write_str("in a runtime of Tokio"),
            Way::ExplicitThreads => f.write_str("in a multi-threaded runtime of Tokio"),
            Way::Beside(name) => write!(f, "on the hub {name}, beside a runtime of Tokio"),
        }
    }
}

/// Runs `program` in a green thread inside of a runtime.
fn run_explicitly<T: 'static>(runtime: runtime::Builder, program: impl FnOnce() -> T + 'static) -> T {
    let program = async { greenhub::future::defer_to_green_thread(program).await };
    let done = build(runtime).block_on(hub_tokio::run_until(program)).expect("the loop starts");
    done.expect("no panic")
}

fn build(mut runtime: runtime::Builder) -> runtime::Runtime {
    runtime.worker_threads(1).enable_all().build().expect("a runtime")
}

/// Runs `program` in the way that the first argument names, and prints the way before it. The `main` of most recipes.
pub fn main<E: fmt::Display + 'static>(program: impl FnOnce() -> Result<(), E> + 'static) -> ExitCode {
    let way = match Way::from_arguments() {
        Ok(way) => way,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    println!("{way}:");
    match way.run(program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
