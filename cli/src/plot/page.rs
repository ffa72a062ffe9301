//! What is where on the page of a plot.

pub const WIDTH: f64 = 760.0;
pub const HEIGHT: f64 = 480.0;
/// The edges of the area between the axes.
pub const LEFT: f64 = 84.0;
pub const RIGHT: f64 = WIDTH - 24.0;
pub const BOTTOM: f64 = HEIGHT - 60.0;
pub const MARK: f64 = 4.5;
