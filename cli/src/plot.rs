//! Scatter and line plots as SVG, with linear or logarithmic axes, for light and dark pages.

use std::fmt::Write;

/// One axis.
pub struct Axis {
    pub label: String,
    /// Logarithmic: values that are not above zero are left out.
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
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 480.0;
/// The edges of the area between the axes.
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = HEIGHT - 60.0;
/// Approximate width and height of a letter.
const LETTER: (f64, f64) = (6.9, 13.0);
const MARK: f64 = 4.5;

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
        let x = Scale::new(self.x.log, points().map(|p| p.x), LEFT, RIGHT);
        let y = Scale::new(self.y.log, points().map(|p| p.y), BOTTOM, TOP);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\">\n<style>{STYLE}</style>\n\
             <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n"
        );
        text(&mut out, (LEFT, 24.0), "class=\"title\"", &self.title);
        axes(&mut out, self, &x, &y);
        let mut taken: Vec<Area> =
            points().map(|p| Area::around(x.place(p.x), y.place(p.y), MARK + 1.0)).collect();
        let mut legend = LEFT;
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
            if self.series.len() > 1 {
                mark(&mut out, number, (legend + MARK, 44.0));
                text(&mut out, (legend + 14.0, 48.0), "", &series.name);
                legend += 34.0 + width(&series.name);
            }
        }
        for point in points().filter(|p| !p.label.is_empty()) {
            let place = (x.place(point.x), y.place(point.y));
            let area = free_place(place, width(&point.label), &taken);
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
}

impl Axis {
    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }
}

/// Maps values to coordinates on the page.
struct Scale {
    log: bool,
    /// The ends, as logarithms on a logarithmic axis.
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    fn new(log: bool, values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let value = |v: f64| if log { v.log10() } else { v };
        let (low, high) =
            values.map(value).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        // A margin around the values; but a linear axis of values near zero begins at zero.
        let room = if high > low { (high - low) * 0.08 } else { 0.5 * high.abs().max(1.0) };
        let from = if !log && low >= 0.0 && low < 0.4 * high { 0.0 } else { low - room };
        Self { log, from, to: high + room, start, end }
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        self.start + (value - self.from) / (self.to - self.from) * (self.end - self.start)
    }

    /// About six round values.
    fn ticks(&self) -> Vec<f64> {
        let span = self.to - self.from;
        if self.log && span > 0.7 {
            let steps: &[f64] = match span {
                ..1.5 => &[1.0, 2.0, 3.0, 5.0],
                ..3.0 => &[1.0, 3.0],
                _ => &[1.0],
            };
            let decades = self.from.floor() as i32..=self.to.ceil() as i32;
            let all = decades.flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)));
            return all.filter(|v| (self.from..=self.to).contains(&v.log10())).collect();
        }
        // A logarithmic axis of less than a decade has the ticks of a linear one.
        let (from, to) =
            if self.log { (10f64.powf(self.from), 10f64.powf(self.to)) } else { (self.from, self.to) };
        let rough = (to - from) / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().map(|s| s * power).find(|&s| s >= rough).unwrap_or(rough);
        let first = (from / step).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|&v| v <= to).collect()
    }
}

fn axes(out: &mut String, plot: &Plot, x: &Scale, y: &Scale) {
    for tick in x.ticks() {
        let at = x.place(tick);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{BOTTOM}\"/>");
        text(out, (at, BOTTOM + 18.0), "text-anchor=\"middle\"", &number(tick));
    }
    for tick in y.ticks() {
        let at = y.place(tick);
        let _ = writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>");
        text(out, (LEFT - 8.0, at + 4.0), "text-anchor=\"end\"", &number(tick));
    }
    let _ = writeln!(out, "<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>");
    text(out, ((LEFT + RIGHT) / 2.0, HEIGHT - 16.0), "text-anchor=\"middle\"", &plot.x.label);
    let middle = (TOP + BOTTOM) / 2.0;
    let turned = format!("text-anchor=\"middle\" transform=\"rotate(-90 20 {middle})\"");
    text(out, (20.0, middle), &turned, &plot.y.label);
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

fn width(label: &str) -> f64 {
    label.chars().count() as f64 * LETTER.0
}

/// The label of a tick.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        1e-4..1e6 => {
            let text = format!("{value:.6}");
            text.trim_end_matches('0').trim_end_matches('.').into()
        }
        _ => format!("{value:.0e}"),
    }
}

/// A rectangle on the page.
#[derive(Clone, Copy)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn around(x: f64, y: f64, room: f64) -> Self {
        Self { left: x - room, right: x + room, top: y - room, bottom: y + room }
    }

    /// The size of the overlap of both.
    fn shared(&self, other: &Self) -> f64 {
        let x = self.right.min(other.right) - self.left.max(other.left);
        let y = self.bottom.min(other.bottom) - self.top.max(other.top);
        x.max(0.0) * y.max(0.0)
    }
}

/// A place for a label beside a point that overlaps others as little as possible; level with the point if there is room.
fn free_place((x, y): (f64, f64), width: f64, taken: &[Area]) -> Area {
    let mut best: Option<(f64, Area)> = None;
    for up in [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0_f64] {
        // A label that is not level with its point is connected to it by a line, which takes room.
        let gap = if up == 0.0 { MARK + 3.0 } else { 4.0 * MARK };
        let top = y - up * (LETTER.1 + 1.0) - LETTER.1 / 2.0;
        for left in [x + gap, x - gap - width] {
            let area = Area { left, right: left + width, top, bottom: top + LETTER.1 };
            let outside = area.left < LEFT || area.right > WIDTH - 4.0 || top < TOP || area.bottom > BOTTOM;
            let shared: f64 = taken.iter().map(|t| t.shared(&area)).sum();
            let cost = shared + up.abs() + if outside { 1e6 } else { 0.0 };
            if best.is_none_or(|(lowest, _)| cost < lowest) {
                best = Some((cost, area));
            }
        }
    }
    best.map_or(Area::around(x, y, MARK), |(_, area)| area)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<Point>, log: bool) -> Plot {
        let axis = || Axis { label: "a < b".into(), log };
        let series = vec![Series { name: "one".into(), points, line: true }];
        Plot { title: "A & B".into(), x: axis(), y: axis(), series }
    }

    fn point(x: f64, y: f64) -> Point {
        Point { x, y, label: "label".into() }
    }

    #[test]
    fn ticks_are_round_and_on_the_page() {
        for (log, values, expected) in [
            (false, vec![0.3, 9.0], "0 2 4 6 8"),
            (false, vec![100.0, 101.0], "100 100.2 100.4 100.6 100.8 101"),
            (true, vec![1e-5, 0.5], "1e-5 0.0001 0.001 0.01 0.1 1"),
            (true, vec![3.0, 90.0], "3 10 30 100"),
            (true, vec![4.0, 9.0], "4 5 6 7 8 9"),
        ] {
            let scale = Scale::new(log, values.into_iter(), LEFT, RIGHT);
            let ticks = scale.ticks();
            assert_eq!(ticks.iter().copied().map(number).collect::<Vec<_>>().join(" "), expected);
            assert!(ticks.iter().all(|&t| (LEFT..=RIGHT).contains(&scale.place(t))));
        }
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
    fn labels_of_near_points_keep_apart() {
        let mut taken: Vec<Area> = (0..4).map(|i| Area::around(300.0 + f64::from(i), 200.0, MARK)).collect();
        for i in 0..4 {
            let area = free_place((300.0 + f64::from(i), 200.0), width("label"), &taken);
            assert!(taken.iter().all(|t| t.shared(&area) == 0.0));
            taken.push(area);
        }
    }
}
