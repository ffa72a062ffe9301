//! Scatter and line plots as SVG, in one style, for light and dark pages.

mod labels;
mod page;
mod scale;

use std::fmt::Write;

use labels::{Area, free_place, width};
use page::{BOTTOM, HEIGHT, LEFT, MARK, RIGHT, WIDTH};
use scale::{Scale, number};

/// One axis.
pub struct Axis {
    pub label: String,
    /// Logarithmic, which the plot says: values that are not above zero are left out. A linear axis begins at zero, or the
    /// plot says that it does not.
    pub log: bool,
}

/// A point and its label, which may be empty.
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub label: String,
}

/// Points of one colour, connected by a line or not.
pub struct Series {
    /// Name in the legend. There is no legend for a single series.
    pub name: String,
    pub points: Vec<Point>,
    pub line: bool,
}

/// A plot.
pub struct Plot {
    pub title: String,
    /// How it was measured: seed, steps and whatever else is the same for all points.
    pub note: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

/// Where title, note and the first line of the legend stand, and the height of a line.
const TITLE: f64 = 24.0;
const NOTE: f64 = 44.0;
const LINE: f64 = 20.0;

/// Colours that colour-blind readers can tell apart, too; lighter ones for dark pages.
const STYLE: &str = "
  svg { font: 12px system-ui, 'DejaVu Sans', sans-serif; }
  .page { fill: #ffffff; } text { fill: #24292f; } .grid { stroke: #d8dee4; } .axis { stroke: #57606a; }
  .title { font-size: 15px; font-weight: 600; } .line { fill: none; stroke-width: 1.5; }
  .s0 { fill: #0072b2; } .s1 { fill: #d55e00; } .s2 { fill: #009e73; } .s3 { fill: #cc79a7; } .s4 { fill: #b58900; }
  .line.s0 { stroke: #0072b2; } .line.s1 { stroke: #d55e00; } .line.s2 { stroke: #009e73; }
  .line.s3 { stroke: #cc79a7; } .line.s4 { stroke: #b58900; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } text { fill: #e6edf3; } .grid { stroke: #30363d; } .axis { stroke: #8b949e; }
    .s0 { fill: #58a6ff; } .s1 { fill: #ff9e4a; } .s2 { fill: #3ddbb0; } .s3 { fill: #f0a6cf; } .s4 { fill: #f0c75e; }
    .line.s0 { stroke: #58a6ff; } .line.s1 { stroke: #ff9e4a; } .line.s2 { stroke: #3ddbb0; }
    .line.s3 { stroke: #f0a6cf; } .line.s4 { stroke: #f0c75e; }
  }
  .line { fill: none !important; }
";
const COLOURS: usize = 5;

impl Plot {
    /// The plot as an SVG file. Points that are not finite, or not above zero on a logarithmic axis, are left out.
    pub fn svg(&self) -> String {
        let shown = |p: &&Point| self.x.shows(p.x) && self.y.shows(p.y);
        let points = || self.series.iter().flat_map(|s| s.points.iter().filter(shown));
        let legend = self.legend();
        let top = legend.iter().map(|(_, y)| *y).fold(NOTE, f64::max) + LINE;
        let values = |of: fn(&Point) -> f64| points().map(of).collect::<Vec<_>>();
        let x = Scale::new(self.x.log, &values(|p| p.x), (LEFT, RIGHT));
        let y = Scale::new(self.y.log, &values(|p| p.y), (BOTTOM, top));
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\">\n<style>{STYLE}</style>\n\
             <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n"
        );
        text(&mut out, (LEFT, TITLE), "class=\"title\"", &self.title);
        text(&mut out, (LEFT, NOTE), "", &self.note);
        axes(&mut out, self, (&x, &y), top);
        for (number, series) in self.series.iter().enumerate() {
            let class = number % COLOURS;
            let places: Vec<(f64, f64)> =
                series.points.iter().filter(shown).map(|p| (x.place(p.x), y.place(p.y))).collect();
            if series.line {
                let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                // Writing to a String cannot fail, here and below.
                let _ = writeln!(out, "<polyline class=\"line s{class}\" points=\"{}\"/>", path.join(" "));
            }
            places.iter().for_each(|&place| mark(&mut out, number, place));
        }
        for (number, (series, &(left, line))) in self.series.iter().zip(&legend).enumerate() {
            mark(&mut out, number, (left + MARK, line - 4.0));
            text(&mut out, (left + 14.0, line), "", &series.name);
        }
        let mut taken: Vec<Area> =
            points().map(|p| Area::around(x.place(p.x), y.place(p.y), MARK + 1.0)).collect();
        for point in points().filter(|p| !p.label.is_empty()) {
            let place = (x.place(point.x), y.place(point.y));
            let area = free_place(place, width(&point.label), top, &taken);
            let (middle, right) = ((area.top + area.bottom) / 2.0, area.left > place.0);
            let (side, towards) = if right { (area.left, -2.0) } else { (area.right, 2.0) };
            if (middle - place.1).abs() > 1.0 {
                let ((x, y), side) = (place, side + towards);
                let _ = writeln!(out, "<path class=\"axis\" d=\"M{x:.1} {y:.1}L{side:.1} {middle:.1}\"/>");
            }
            let anchor = if right { "" } else { "text-anchor=\"end\"" };
            text(&mut out, (side, area.bottom - 3.0), anchor, &point.label);
            taken.push(area);
        }
        out += "</svg>\n";
        out
    }

    /// Where the entries of the legend begin; none for a single series.
    fn legend(&self) -> Vec<(f64, f64)> {
        let (mut left, mut line) = (LEFT, NOTE + LINE);
        let series = if self.series.len() > 1 { self.series.as_slice() } else { &[] };
        let entries = series.iter().map(|series| {
            let width = 34.0 + width(&series.name);
            if left + width > RIGHT + 20.0 && left > LEFT {
                (left, line) = (LEFT, line + LINE);
            }
            let entry = (left, line);
            left += width;
            entry
        });
        entries.collect()
    }
}

impl Axis {
    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }
}

fn axes(out: &mut String, plot: &Plot, (x, y): (&Scale, &Scale), top: f64) {
    for &tick in x.ticks() {
        let at = x.place(tick);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{at:.1} {top}V{BOTTOM}\"/>");
        text(out, (at, BOTTOM + 18.0), "text-anchor=\"middle\"", &number(tick));
    }
    for &tick in y.ticks() {
        let at = y.place(tick);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>");
        text(out, (LEFT - 8.0, at + 4.0), "text-anchor=\"end\"", &number(tick));
    }
    let _ = writeln!(out, "<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {top}V{BOTTOM}H{RIGHT}\"/>");
    let label = |axis: &Axis, scale: &Scale| format!("{}{}", axis.label, scale.remark());
    text(out, ((LEFT + RIGHT) / 2.0, HEIGHT - 16.0), "text-anchor=\"middle\"", &label(&plot.x, x));
    let middle = (top + BOTTOM) / 2.0;
    let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 20 {middle})\"");
    text(out, (20.0, middle), &turned, &label(&plot.y, y));
}

/// The mark of a point: each series has its shape and colour.
fn mark(out: &mut String, series: usize, (x, y): (f64, f64)) {
    let class = series % COLOURS;
    let m = MARK;
    let _ = match series % 4 {
        0 => writeln!(out, "<circle class=\"s{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{m}\"/>"),
        1 => {
            let (x, y, side) = (x - m, y - m, 2.0 * m);
            writeln!(
                out,
                "<rect class=\"s{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side}\" height=\"{side}\"/>"
            )
        }
        2 => writeln!(
            out,
            "<path class=\"s{class}\" d=\"M{x:.1} {:.1}l{m} {}h-{}z\"/>",
            y - m,
            2.0 * m,
            2.0 * m
        ),
        _ => {
            writeln!(out, "<path class=\"s{class}\" d=\"M{x:.1} {:.1}l{m} {m}l-{m} {m}l-{m} -{m}z\"/>", y - m)
        }
    };
}

fn text(out: &mut String, (x, y): (f64, f64), attributes: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{content}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<Point>, log: bool) -> Plot {
        let axis = || Axis { label: "a < b".into(), log };
        let series = vec![Series { name: "one".into(), points, line: true }];
        Plot { title: "A & B".into(), note: "seed 1".into(), x: axis(), y: axis(), series }
    }

    fn point(x: f64, y: f64) -> Point {
        Point { x, y, label: "label".into() }
    }

    #[test]
    fn what_has_no_place_is_left_out_and_text_is_escaped() {
        let points = || vec![point(1.0, 10.0), point(2.0, 0.0), point(f64::NAN, 1.0), point(3.0, -1.0)];
        assert_eq!(plot(points(), true).svg().matches("<circle").count(), 1);
        let svg = plot(points(), false).svg();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("A &amp; B") && svg.contains("a &lt; b") && !svg.contains("NaN"));
        for few in [vec![], vec![point(0.0, 0.0)], vec![point(5.0, 5.0)]] {
            let svg = plot(few, false).svg();
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn plot_says_how_it_was_measured_and_what_its_axes_are() {
        let svg = plot(vec![point(1.0, 2.0), point(100.0, 3.0)], true).svg();
        assert!(svg.contains(">seed 1<") && svg.contains("a &lt; b, logarithmic"), "{svg}");
        assert!(svg.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn long_legend_takes_several_lines_above_the_axes() {
        let mut plot = plot(vec![point(1.0, 2.0)], false);
        let series = |i: usize| Series { name: format!("a long name {i}"), points: vec![], line: true };
        plot.series.extend((0..12).map(series));
        let legend = plot.legend();
        assert_eq!(legend.len(), 13);
        assert!(legend.last().unwrap().1 > legend.first().unwrap().1);
        for ((left, _), series) in legend.iter().zip(&plot.series) {
            assert!(left + 14.0 + width(&series.name) < WIDTH);
        }
        let top = legend.last().unwrap().1 + LINE;
        assert!(plot.svg().contains(&format!("M{LEFT} {top}V{BOTTOM}")));
    }
}
