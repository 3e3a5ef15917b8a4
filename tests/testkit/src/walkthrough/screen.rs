//! Progress output: a table that is redrawn in place on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Interval of lines without changes if there is no terminal.
const PLAIN_PERIOD: Duration = Duration::from_secs(5);
/// Columns of the chart of replicas.
const CHART: usize = 60;
/// Turns line wrapping off, so that a long line does not break the table on a narrow terminal.
const WRAP_OFF: &str = "\x1b[?7l";
const WRAP_ON: &str = "\x1b[?7h";
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The displayed state.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// The current phase.
    pub(super) phase: String,
    pub(super) elapsed: Duration,
    /// Approximate remaining time.
    pub(super) remaining: Duration,
    pub(super) clusters: Vec<Row>,
    /// The desired replicas of the template.
    pub(super) replicas: i32,
    pub(super) max_replicas: i32,
    /// The average of the metric, in thousandths.
    pub(super) average: Option<i64>,
    /// The target average, in thousandths.
    pub(super) target: i64,
    /// Requests per second of the load generator.
    pub(super) load: u32,
    /// Duration of the last query, and the number of its values or its error.
    pub(super) query: Option<(Duration, Result<usize, String>)>,
    pub(super) warnings: Vec<String>,
    /// Replicas over time, one per two seconds.
    pub(super) chart: Vec<i32>,
}

/// One cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) wanted: u32,
    /// Ready pods. `None` if the cluster could not be read.
    pub(super) ready: Option<usize>,
    pub(super) frozen: bool,
    /// Number of the metric's values from this cluster. Their average follows, in thousandths.
    pub(super) values: usize,
    pub(super) average: Option<i64>,
}

/// The output.
pub(super) struct Screen {
    terminal: bool,
    color: bool,
    /// Lines of the table at the bottom of the terminal.
    drawn: usize,
    last: Option<(Instant, (String, i32))>,
}

impl Screen {
    /// Output to stdout.
    pub(super) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let color = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { terminal, color, drawn: 0, last: None }
    }

    /// Prints lines above the table.
    pub(super) fn say(&mut self, text: &str) {
        let mut output = String::new();
        self.erase(&mut output);
        output.push_str(text);
        output.push('\n');
        emit(&output);
    }

    /// Displays the state.
    pub(super) fn show(&mut self, view: &View) {
        if self.terminal {
            let mut output = String::new();
            self.erase(&mut output);
            let table = table(view, self.color);
            self.drawn = table.lines().count();
            output.push_str(WRAP_OFF);
            output.push_str(&table);
            output.push_str(WRAP_ON);
            emit(&output);
        } else {
            let state = (view.phase.clone(), view.replicas);
            let due =
                self.last.as_ref().is_none_or(|(at, last)| at.elapsed() >= PLAIN_PERIOD || *last != state);
            if due {
                self.last = Some((Instant::now(), state));
                emit(&format!("{}\n", line(view)));
            }
        }
    }

    /// Leaves the table on the terminal.
    pub(super) fn finish(&mut self) {
        self.drawn = 0;
    }

    fn erase(&mut self, output: &mut String) {
        if self.drawn > 0 {
            let _ = write!(output, "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }
}

/// Minutes and seconds.
pub(super) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Thousandths as a decimal number.
pub(super) fn decimal(thousandths: i64) -> String {
    format!("{:.2}", thousandths as f64 / 1000.0)
}

fn table(view: &View, color: bool) -> String {
    let paint = |code: &str, text: &str| {
        if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let mut text = String::new();
    let time = format!("{}, about {} to go", clock(view.elapsed), clock(view.remaining));
    let _ = writeln!(text, "\n  {}  {}", paint("1", &format!("{:<50}", view.phase)), paint("2", &time));
    let heading = format!("{:<12}{:>9}{:>8}   http_requests per replica", "", "replicas", "ready");
    let _ = writeln!(text, "\n  {}", paint("2", &heading));
    for row in &view.clusters {
        let ready = row.ready.map_or_else(|| "?".to_owned(), |ready| ready.to_string());
        let mut line = format!("{:<12}{:>9}{:>8}   {}", row.name, row.wanted, ready, average_text(row));
        if row.frozen {
            line = paint("36", &format!("{line}   frozen"));
        }
        let _ = writeln!(text, "  {line}");
    }
    let average = view.average.map_or_else(|| "–".to_owned(), decimal);
    let total = format!("{:<12}{:>9}{:>8}   {average} on average", "total", view.replicas, "");
    let _ = writeln!(
        text,
        "  {}, {} wanted, load {} requests/s",
        paint("1", &total),
        decimal(view.target),
        view.load
    );
    let _ = writeln!(text, "\n  {:<12}{}", "over time", paint("32", &chart(view)));
    let _ = writeln!(text, "  {:<12}{}", "last query", query_text(view));
    let warning = view.warnings.first().map_or("none", |warning| warning_text(warning));
    let code = if view.warnings.is_empty() { "2" } else { "33" };
    let _ = writeln!(text, "  {:<12}{}", "warning", paint(code, warning));
    text
}

fn line(view: &View) -> String {
    let mut text = format!("{:>5}  {:<34}", clock(view.elapsed), view.phase);
    for row in &view.clusters {
        let ready = row.ready.map_or_else(|| "?".to_owned(), |ready| ready.to_string());
        let _ = write!(text, "  {} {ready}/{}", row.name, row.wanted);
    }
    let average = view.average.map_or_else(|| "-".to_owned(), decimal);
    let _ = write!(text, "  replicas {:>2}  http_requests {average}", view.replicas);
    let _ = write!(text, "  load {}/s  query {}", view.load, query_text(view));
    if let Some(warning) = view.warnings.first() {
        let _ = write!(text, "  warning: {}", warning_text(warning));
    }
    text
}

fn average_text(row: &Row) -> String {
    match row.average {
        Some(average) => format!("{} ({})", decimal(average), counted(row.values)),
        None => "–".to_owned(),
    }
}

fn query_text(view: &View) -> String {
    match &view.query {
        None => "none yet".to_owned(),
        Some((took, Ok(values))) => format!("{} in {} ms", counted(*values), took.as_millis()),
        Some((took, Err(error))) => format!("failed after {} ms: {error}", took.as_millis()),
    }
}

fn counted(values: usize) -> String {
    if values == 1 { "1 value".to_owned() } else { format!("{values} values") }
}

/// The text of a `Warning` header: `299 - "text"`.
fn warning_text(header: &str) -> &str {
    header.split_once('"').map_or(header, |(_, text)| text.trim_end_matches('"'))
}

/// Replicas as bars, the latest last.
fn chart(view: &View) -> String {
    let most = view.max_replicas.max(1);
    let recent = &view.chart[view.chart.len().saturating_sub(CHART)..];
    let bar = |replicas: &i32| BARS[usize::try_from(*replicas * 8 / most).unwrap_or_default().clamp(1, 8)];
    format!("{} {}", recent.iter().map(bar).collect::<String>(), view.replicas)
}

/// Ignores write errors: without stdout the exit code of the walkthrough still counts.
fn emit(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            phase: "load".to_owned(),
            elapsed: Duration::from_secs(62),
            remaining: Duration::from_secs(9),
            clusters: vec![
                Row {
                    name: "member1".to_owned(),
                    wanted: 5,
                    ready: Some(4),
                    values: 5,
                    average: Some(4020),
                    ..Row::default()
                },
                Row { name: "member2".to_owned(), wanted: 5, frozen: true, ..Row::default() },
            ],
            replicas: 10,
            max_replicas: 10,
            average: Some(4020),
            target: 700,
            load: 40,
            query: Some((Duration::from_millis(12), Ok(5))),
            warnings: vec!["299 - \"member2: no response\"".to_owned()],
            chart: vec![1, 5, 10],
        }
    }

    #[test]
    fn plain_line_has_the_whole_state() {
        assert_eq!(
            line(&view()),
            " 1:02  load                                member1 4/5  member2 ?/5  replicas 10  http_requests 4.02  \
             load 40/s  query 5 values in 12 ms  warning: member2: no response"
        );
    }

    #[test]
    fn table_has_a_row_per_cluster_and_optional_colors() {
        let table = table(&view(), false);
        assert!(table.contains("  member1             5       4   4.02 (5 values)\n"), "{table}");
        assert!(table.contains("  member2             5       ?   –   frozen\n"), "{table}");
        assert!(table.contains("  over time   ▁▄█ 10\n"), "{table}");
        assert!(!table.contains('\x1b'), "{table}");
    }
}
