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

/// How to play it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The adapter's binary.
    pub adapter: PathBuf,
    /// Stay up afterwards.
    pub hold: bool,
    /// Where the adapter's output goes; a new file among the temporary ones by default.
    pub log: Option<PathBuf>,
}

/// Plays it with progress and a summary on stdout; says whether everything was as promised. Everything that it
/// has started ends with the future.
///
/// # Errors
/// If something cannot be started, or the adapter ends.
pub async fn play(options: &Options) -> anyhow::Result<bool> {
    let mut screen = Screen::stdout();
    screen.say("A control plane and two member clusters are starting, and the adapter beside them.");
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
        screen.say(&format!("\nNot everything was as promised; {}", stage.adapter.log_tail()));
    }
    if options.hold {
        screen.say(&stage.invitation()?);
        stage.hold().await?;
    }
    Ok(good)
}
