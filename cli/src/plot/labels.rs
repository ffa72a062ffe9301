//! Where the labels of points go.

use super::page::{BOTTOM, LEFT, MARK, WIDTH};

/// Approximate width and height of a letter.
const LETTER: (f64, f64) = (6.9, 13.0);

pub fn width(label: &str) -> f64 {
    label.chars().count() as f64 * LETTER.0
}

/// A rectangle on the page.
#[derive(Clone, Copy)]
pub struct Area {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Area {
    pub fn around(x: f64, y: f64, room: f64) -> Self {
        Self { left: x - room, right: x + room, top: y - room, bottom: y + room }
    }

    /// The size of the overlap of both.
    fn shared(&self, other: &Self) -> f64 {
        let x = self.right.min(other.right) - self.left.max(other.left);
        let y = self.bottom.min(other.bottom) - self.top.max(other.top);
        x.max(0.0) * y.max(0.0)
    }
}

/// A place for a label beside a point that overlaps others as little as possible, below `highest`; level with the point if
/// there is room.
pub fn free_place((x, y): (f64, f64), width: f64, highest: f64, taken: &[Area]) -> Area {
    let mut best: Option<(f64, Area)> = None;
    for up in [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0_f64] {
        // A label that is not level with its point is connected to it by a line, which takes room.
        let gap = if up == 0.0 { MARK + 3.0 } else { 4.0 * MARK };
        let top = y - up * (LETTER.1 + 1.0) - LETTER.1 / 2.0;
        for left in [x + gap, x - gap - width] {
            let area = Area { left, right: left + width, top, bottom: top + LETTER.1 };
            let outside =
                area.left < LEFT || area.right > WIDTH - 4.0 || top < highest || area.bottom > BOTTOM;
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

    #[test]
    fn labels_of_near_points_keep_apart() {
        let mut taken: Vec<Area> = (0..4).map(|i| Area::around(300.0 + f64::from(i), 200.0, MARK)).collect();
        for i in 0..4 {
            let area = free_place((300.0 + f64::from(i), 200.0), width("label"), 64.0, &taken);
            assert!(taken.iter().all(|t| t.shared(&area) == 0.0));
            taken.push(area);
        }
    }
}
