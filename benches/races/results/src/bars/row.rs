//! A promise with a number, and whether it is held.

use serde::Serialize;

#[derive(Serialize)]
pub struct Row {
    pub name: String,
    /// None when it was not measured in this run, which does not meet the bar.
    pub value: Option<f64>,
    pub unit: &'static str,
    pub bar: f64,
    pub sense: Sense,
    pub verdict: Verdict,
    /// The same of what is written by hand.
    pub lower_bound: Option<f64>,
    pub best_peer: Option<String>,
    pub best_peer_value: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Sense {
    #[serde(rename = "at most")]
    AtMost,
    #[serde(rename = "at least")]
    AtLeast,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Met,
    Short,
}

/// The bar is met by what is no more than this.
pub fn at_most(name: impl Into<String>, bar: f64, unit: &'static str) -> Row {
    Row::new(name.into(), Sense::AtMost, bar, unit)
}

/// The bar is met by what is no less than this.
pub fn at_least(name: impl Into<String>, bar: f64, unit: &'static str) -> Row {
    Row::new(name.into(), Sense::AtLeast, bar, unit)
}

impl Row {
    fn new(name: String, sense: Sense, bar: f64, unit: &'static str) -> Self {
        Self {
            name,
            value: None,
            unit,
            bar,
            sense,
            verdict: Verdict::Short,
            lower_bound: None,
            best_peer: None,
            best_peer_value: None,
        }
    }

    pub fn of(mut self, value: Option<f64>) -> Self {
        let met = value.is_some_and(|value| !self.sense.prefers(self.bar, value));
        self.value = value.map(rounded);
        self.verdict = if met { Verdict::Met } else { Verdict::Short };
        self
    }

    pub fn beside(mut self, lower_bound: Option<f64>) -> Self {
        self.lower_bound = lower_bound.map(rounded);
        self
    }

    /// The best of them, in the sense of the bar.
    pub fn peer(mut self, peers: Vec<(String, f64)>) -> Self {
        let best = peers.into_iter().reduce(|best, next| {
            if self.sense.prefers(next.1, best.1) {
                next
            } else {
                best
            }
        });
        if let Some((name, value)) = best {
            self.best_peer = Some(name);
            self.best_peer_value = Some(rounded(value));
        }
        self
    }

    /// Who loses to a peer says so, even where the bar is met.
    pub fn loses(&self) -> bool {
        let both = self.value.zip(self.best_peer_value);
        both.is_some_and(|(value, peer)| self.sense.prefers(peer, value))
    }

    pub fn cells(&self) -> [String; 6] {
        let sense = if self.sense == Sense::AtMost {
            "≤"
        } else {
            "≥"
        };
        let verdict = match (self.value, self.verdict) {
            (None, _) => "not measured",
            (_, Verdict::Met) => "met",
            (_, Verdict::Short) => "short",
        };
        let peer = self.best_peer.as_ref().zip(self.best_peer_value);
        let loses = if self.loses() { ", which is ahead" } else { "" };
        [
            self.name.clone(),
            self.value.map_or_else(
                || "–".into(),
                |value| format!("{} {}", number(value), self.unit),
            ),
            format!("{sense} {}", number(self.bar)),
            verdict.to_owned(),
            self.lower_bound.map_or_else(|| "–".into(), number),
            peer.map_or_else(
                || "–".into(),
                |(name, value)| format!("{} {name}{loses}", number(value)),
            ),
        ]
    }
}

impl Sense {
    fn prefers(self, one: f64, other: f64) -> bool {
        match self {
            Self::AtMost => one < other,
            Self::AtLeast => one > other,
        }
    }
}

/// Three digits are what a measurement is good for.
fn rounded(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let scale = 10_f64.powi(2 - value.abs().log10().floor() as i32);
    if value.abs() >= 1_000.0 {
        value.round()
    } else {
        (value * scale).round() / scale
    }
}

/// With a separator for thousands, as in the tables.
pub fn number(value: f64) -> String {
    let text = if value.fract() == 0.0 || value.abs() >= 1_000.0 {
        format!("{value:.0}")
    } else {
        format!("{value}")
    };
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), String::new()), |(whole, rest)| {
            (whole, format!(".{rest}"))
        });
    let (sign, digits) = whole
        .strip_prefix('-')
        .map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}
