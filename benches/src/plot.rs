//! Plots as SVG, with logarithmic axes.

use anyhow::{anyhow, ensure};
use plotters::prelude::*;
use plotters::style::FontTransform;

/// One line of a plot: name, colour, and points from left to right.
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// The components `red`, `green` and `blue`.
    pub colour: (u8, u8, u8),
    /// Pairs of x and y, both above 0. At least one pair.
    pub points: Vec<(f64, f64)>,
}

/// The plot as an SVG document. `axes` are the names of x and y.
///
/// # Errors
/// If there are no lines, or the plot cannot be drawn.
pub fn svg(axes: (&str, &str), lines: &[Line]) -> anyhow::Result<String> {
    ensure!(!lines.is_empty(), "the results have no scenarios for the plot");
    let mut text = String::new();
    draw(&mut text, axes, lines).map_err(|error| anyhow!("cannot draw the plot: {error}"))?;
    Ok(text)
}

fn draw(text: &mut String, axes: (&str, &str), lines: &[Line]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(text, (760, 440)).into_drawing_area();
    area.fill(&WHITE)?;
    let points = || lines.iter().flat_map(|line| &line.points);
    let mut chart =
        ChartBuilder::on(&area).margin(16).x_label_area_size(48).y_label_area_size(72).build_cartesian_2d(
            decades(points().map(|point| point.0)).log_scale(),
            decades(points().map(|point| point.1)).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc(axes.0)
        .y_desc(axes.1)
        .x_label_formatter(&|value| value.to_string())
        .y_label_formatter(&|value| value.to_string())
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .light_line_style(RGBColor(240, 240, 240))
        .bold_line_style(RGBColor(205, 205, 205))
        .draw()?;
    for Line { name, colour: (red, green, blue), points } in lines {
        let style = RGBColor(*red, *green, *blue).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style).point_size(4))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .margin(12)
        .label_font(("sans-serif", 14).into_font().transform(FontTransform::None))
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(205, 205, 205))
        .draw()?;
    area.present()?;
    Ok(())
}

/// The range from the power of ten below these values to the one above.
fn decades(values: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
    let (low, high) = (values.clone().fold(f64::MAX, f64::min), values.fold(f64::MIN, f64::max));
    10_f64.powf(low.log10().floor())..10_f64.powf(high.log10().ceil())
}
