//! The FederatedHPA walkthrough: an application in two member clusters scales out under load and back in, while
//! one of them freezes.

mod course;
mod evidence;
mod phase;
mod query_command;
mod screen;
mod stage;

use std::path::PathBuf;

use course::Course;
use screen::Screen;
use stage::Stage;

/// Options of the walkthrough.
#[derive(Clone, Debug)]
pub struct Options {
    /// The adapter's binary.
    pub adapter: PathBuf,
    /// Whether everything keeps running afterwards.
    pub hold: bool,
    /// File for the adapter's output. `None`: a new temporary file.
    pub log: Option<PathBuf>,
}

/// Runs the walkthrough with progress and a summary on stdout. Returns whether all checks passed. Everything that it has
/// started stops when the future is dropped.
///
/// # Errors
/// If something cannot be started, or the adapter exits.
pub async fn play(options: &Options) -> anyhow::Result<bool> {
    let mut screen = Screen::stdout();
    screen.say("Starting a control plane, two member clusters and the adapter.");
    let mut stage = Stage::set(options).await?;
    screen.say(&stage.introduction());
    let mut course = Course::new(&stage);
    course.run(&mut stage, &mut screen).await?;

    let checks = course.checks();
    let good = checks.iter().all(|check| check.holds);
    screen.say("\nSummary");
    for check in &checks {
        screen.say(&check.to_string());
    }
    screen.say(&format!("       {:<14} {}", "load", course.load_line()));
    if !good {
        screen.say(&format!("\nNot all checks passed; {}", stage.adapter.log_tail()));
    }
    if options.hold {
        screen.say(&stage.invitation()?);
        stage.hold().await?;
    }
    Ok(good)
}
