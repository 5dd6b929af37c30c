//! Plots as SVG: lines over a scale that is even or logarithmic, light and dark backgrounds alike.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use results::Measure;

use crate::bars::number;
use crate::measures::Measures;

struct Plot {
    file: &'static str,
    title: &'static str,
    tables: &'static [(&'static str, &'static str)],
    x: Scale,
    y: Scale,
    /// What stands under and beside it.
    labels: [&'static str; 2],
}

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Even,
    Log,
}

const PLOTS: [Plot; 5] = [
    Plot {
        file: "pages.svg",
        title: "A page of 50 rows by depth (Postgres)",
        tables: &[("pages", "Postgres")],
        x: Scale::Even,
        y: Scale::Log,
        labels: ["percent of the rows before the page", "µs"],
    },
    Plot {
        file: "backlog.svg",
        title: "Relay throughput by backlog",
        tables: &[("outbox", "drain by backlog")],
        x: Scale::Log,
        y: Scale::Log,
        labels: ["rows waiting", "messages/s"],
    },
    Plot {
        file: "breaker.svg",
        title: "A closed breaker by calls in its time window",
        tables: &[("breaker", "by calls in the window")],
        x: Scale::Log,
        y: Scale::Log,
        labels: ["calls in the window", "ns"],
    },
    Plot {
        file: "storm.svg",
        title: "Calls answered well, by the second: a stall from 20 s to 23 s",
        tables: &[("storm", "good calls")],
        x: Scale::Even,
        y: Scale::Even,
        labels: ["s", "percent"],
    },
    Plot {
        file: "latency.svg",
        title: "Commit to publish at 1,000 messages a second",
        tables: &[("outbox", "latency percentiles")],
        x: Scale::Even,
        y: Scale::Log,
        labels: ["percentile", "ms"],
    },
];

/// Those whose figures there are.
pub fn write(measures: &Measures, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for plot in PLOTS {
        let points: Vec<&Measure> = plot
            .tables
            .iter()
            .flat_map(|(race, table)| measures.table(race, table))
            .filter(|measure| measure.at.is_some() && measure.value.is_finite())
            .collect();
        if !points.is_empty() {
            fs::write(folder.join(plot.file), draw(&plot, &points)).unwrap();
        }
    }
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 330.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = 50.0;
/// Told apart by people who do not see all colours (Okabe and Ito's).
const COLOURS: [&str; 8] = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C6D31",
];

/// From the least to the most, as a share of the axis.
struct Axis {
    scale: Scale,
    least: f64,
    most: f64,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        match scale {
            // Whole powers of ten at both ends.
            Scale::Log => Self {
                scale,
                least: least.max(1e-3).log10().floor(),
                most: most.max(1e-2).log10().ceil(),
            },
            Scale::Even => Self {
                scale,
                least: least.min(0.0),
                most: if most > least { most } else { least + 1.0 },
            },
        }
    }

    fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Log => value.max(1e-3).log10(),
            Scale::Even => value,
        };
        (value - self.least) / (self.most - self.least).max(f64::MIN_POSITIVE)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Log => (self.least as i32..=self.most as i32)
                .map(|power| 10_f64.powi(power))
                .collect(),
            Scale::Even => {
                let rough = (self.most - self.least) / 5.0;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
                let step = step
                    .into_iter()
                    .find(|step| *step >= rough)
                    .unwrap_or(rough);
                (0..)
                    .map(|n| self.least + f64::from(n) * step)
                    .take_while(|tick| *tick <= self.most)
                    .collect()
            }
        }
    }
}

fn draw(plot: &Plot, points: &[&Measure]) -> String {
    let x = Axis::new(plot.x, points.iter().filter_map(|point| point.at));
    let y = Axis::new(plot.y, points.iter().map(|point| point.value));
    let across = |value| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
    let up = |value| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(plot.title)
    );
    for tick in x.ticks() {
        let at = across(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
            number(tick)
        );
    }
    for tick in y.ticks() {
        let at = up(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            number(tick)
        );
    }
    let [below, beside] = plot.labels.map(escaped);
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{below}</text><text x=\"8\" y=\"{:.1}\">{beside}</text>",
        (WIDTH - RIGHT + LEFT) / 2.0,
        HEIGHT - 12.0,
        TOP - 14.0
    );
    let mut names: Vec<&str> = Vec::new();
    for point in points {
        if !names.contains(&point.name.as_str()) {
            names.push(&point.name);
        }
    }
    for (number, name) in names.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let mut line: Vec<(f64, f64)> = points
            .iter()
            .filter(|point| point.name == *name)
            .filter_map(|point| Some((across(point.at?), up(point.value))))
            .collect();
        line.sort_by(|a, b| a.0.total_cmp(&b.0));
        let path: Vec<String> = line.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let width = if name.starts_with("mainstay") {
            3.0
        } else {
            1.5
        };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            path.join(" ")
        );
        if line.len() < 30 {
            for (x, y) in &line {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
                );
            }
        }
        let key = TOP + 14.0 + 18.0 * number as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT + 12.0,
            key - 6.0,
            WIDTH - RIGHT + 30.0,
            key,
            escaped(name)
        );
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
