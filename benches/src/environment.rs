//! Machine and versions of a run.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::{Binary, Kind};

/// Pairs of name and value. A value that the system does not report is "unknown".
pub fn describe(binaries: &[Binary]) -> Vec<(String, String)> {
    let reference = binaries.iter().find(|binary| binary.kind == Kind::Reference);
    let rows = [
        ("date", output("date", &["--iso-8601"])),
        ("revision", revision()),
        ("processor", processor()),
        ("cores", std::thread::available_parallelism().ok().map(|cores| cores.to_string())),
        ("memory", memory()),
        ("kernel", output("uname", &["-sr"])),
        ("Rust", output("rustc", &["--version"])),
        ("reference", reference.map_or(Some("not measured".to_owned()), |binary| module(&binary.path))),
    ];
    rows.map(|(name, value)| (name.to_owned(), value.unwrap_or_else(|| "unknown".to_owned()))).into()
}

fn revision() -> Option<String> {
    let revision = output("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changes = output("git", &["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { revision } else { format!("{revision} with uncommitted changes") })
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let (_, model) = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "))?;
    Some(model.to_owned())
}

fn memory() -> Option<String> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))?;
    Some(format!("{:.0} GiB", kibibytes.parse::<f64>().ok()? / f64::from(1 << 20)))
}

/// The module and version of a Go binary, and the version of Go.
fn module(binary: &Path) -> Option<String> {
    let text = output("go", &["version", "-m", &binary.display().to_string()])?;
    let (_, go) = text.lines().next()?.split_once(": ")?;
    // A row is `dep github.com/karmada-io/karmada v1.16.0 h1:…`, or starts with `mod` if it is the main module.
    let mut rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find_map(|row| match row.as_slice() {
        ["dep" | "mod", name @ "github.com/karmada-io/karmada", version, ..] => {
            Some(format!("{name} {version}, {go}"))
        }
        _ => None,
    })
}

/// The output of a program without the line feed. `None` if the program fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
