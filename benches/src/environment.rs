//! Where a run was made, and of what.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::{Binary, Kind};

const UNKNOWN: &str = "unknown";

/// Pairs of a name and a value; a value that the system does not tell is "unknown".
pub fn describe(command: &str, binaries: &[Binary]) -> Vec<(String, String)> {
    let reference = binaries.iter().find(|binary| binary.kind == Kind::Reference);
    let rows = [
        ("date", output("date", &["--iso-8601"])),
        ("revision", revision()),
        ("command", format!("`{command}`")),
        ("processor", processor()),
        ("cores", std::thread::available_parallelism().map_or(UNKNOWN.to_owned(), |cores| cores.to_string())),
        ("memory", memory()),
        ("kernel", output("uname", &["-sr"])),
        ("Rust", output("rustc", &["--version"])),
        ("reference", reference.map_or("not measured".to_owned(), |binary| module(&binary.path))),
    ];
    rows.map(|(name, value)| (name.to_owned(), value)).into()
}

fn revision() -> String {
    let revision = output("git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    if changed { format!("{revision} with uncommitted changes") } else { revision }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or(UNKNOWN.to_owned(), |(_, model)| model.to_owned())
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let gibibytes = kibibytes.and_then(|text| Some(text.parse::<f64>().ok()? / f64::from(1 << 20)));
    gibibytes.map_or(UNKNOWN.to_owned(), |gibibytes| format!("{gibibytes:.0} GiB"))
}

/// The module and version that a Go binary was built from, and the version of Go.
fn module(binary: &Path) -> String {
    let text = output("go", &["version", "-m", &binary.display().to_string()]);
    let go = text.lines().next().and_then(|line| line.split(": ").nth(1));
    // `dep github.com/karmada-io/karmada v1.16.0 h1:…`, or `mod` where it is the main module.
    let mut rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let module = rows.find_map(|row| match row.as_slice() {
        ["dep" | "mod", name @ "github.com/karmada-io/karmada", version, ..] => {
            Some(format!("{name} {version}"))
        }
        _ => None,
    });
    let known: Vec<String> = module.into_iter().chain(go.map(str::to_owned)).collect();
    if known.is_empty() { UNKNOWN.to_owned() } else { known.join(", ") }
}

/// What a program prints, without the line's end.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or(UNKNOWN.to_owned(), |text| String::from_utf8_lossy(&text).trim().to_owned())
}
