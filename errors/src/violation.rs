//! One thing that is wrong with a request, and where: a [`Violation`] names the place by an
//! RFC 6901 JSON pointer and a [`Location`], so a form can mark the field without reading prose.
//!
//! A violation never carries the rejected value: it may be a password.

use std::borrow::Cow;
use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// The most parameters one violation carries. A rule has two or three; nothing legitimate has sixteen.
pub const PARAMS_MAX: usize = 16;

/// Which part of the request a pointer points into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Location {
    /// The JSON body.
    Body,
    /// The query string; the pointer's first segment is the parameter's name.
    Query,
    /// The path; the pointer's first segment is the parameter's name.
    Path,
    /// The headers; the pointer's first segment is the header's name in lower case.
    Header,
}

impl Location {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Query => "query",
            Self::Path => "path",
            Self::Header => "header",
        }
    }

    /// Reads the word on the wire.
    #[must_use]
    pub fn from_wire(word: &str) -> Option<Self> {
        Some(match word {
            "body" => Self::Body,
            "query" => Self::Query,
            "path" => Self::Path,
            "header" => Self::Header,
            _ => return None,
        })
    }
}

/// One member of a problem's `errors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pointer: Cow<'static, str>,
    location: Location,
    code: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
    params: Vec<(Cow<'static, str>, Value)>,
}

impl Violation {
    /// A violation at an RFC 6901 `pointer` (`/lines/0/amount`; empty for the whole) into `location`,
    /// with a `code` for programs (`too_small`).
    ///
    /// A pointer that lacks its leading `/` is taken as a plain field name.
    #[must_use]
    pub fn new(
        location: Location,
        pointer: impl Into<Cow<'static, str>>,
        code: impl Into<Cow<'static, str>>,
    ) -> Self {
        let pointer = pointer.into();
        let pointer = if pointer.is_empty() || pointer.starts_with('/') {
            pointer
        } else {
            Cow::Owned(segment(&pointer))
        };
        Self {
            pointer,
            location,
            code: code.into(),
            detail: None,
            params: Vec::new(),
        }
    }

    /// [`new`](Self::new) for statics: the pointer must be a pointer.
    #[must_use]
    pub const fn from_static(
        location: Location,
        pointer: &'static str,
        code: &'static str,
    ) -> Self {
        Self {
            pointer: Cow::Borrowed(pointer),
            location,
            code: Cow::Borrowed(code),
            detail: None,
            params: Vec::new(),
        }
    }

    /// A violation in the JSON body: `Violation::body("/amount", "too_small")`.
    #[must_use]
    pub fn body(pointer: impl Into<Cow<'static, str>>, code: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Location::Body, pointer, code)
    }

    /// A violation of the query parameter `name`.
    #[must_use]
    pub fn query(name: &str, code: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Location::Query, segment(name), code)
    }

    /// A violation of the path parameter `name`.
    #[must_use]
    pub fn path(name: &str, code: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Location::Path, segment(name), code)
    }

    /// A violation of the header `name`.
    #[must_use]
    pub fn header(name: &str, code: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Location::Header, segment(&name.to_ascii_lowercase()), code)
    }

    /// Says for people what is wrong. It reaches the client: never put the rejected value into it.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Gives a parameter of the rule that was broken, such as `min`: with the code, it is what a text in the
    /// reader's own language is made of. It reaches the client: never put the rejected value into it.
    /// The last of a name counts; beyond [`PARAMS_MAX`] they are left out.
    #[must_use]
    pub fn with_param(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Value>,
    ) -> Self {
        let (name, value) = (name.into(), value.into());
        match self.params.binary_search_by(|(known, _)| known.cmp(&name)) {
            Ok(at) => {
                if let Some(param) = self.params.get_mut(at) {
                    param.1 = value;
                }
            }
            Err(at) if self.params.len() < PARAMS_MAX => self.params.insert(at, (name, value)),
            Err(_) => {}
        }
        self
    }

    /// Where, as an RFC 6901 pointer.
    #[must_use]
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Which part of the request the pointer points into.
    #[must_use]
    pub fn location(&self) -> Location {
        self.location
    }

    /// What, for programs.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What, for people.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The parameters of the rule, by name.
    pub fn params(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.params.iter().map(|(name, value)| (&**name, value))
    }

    /// Says that it is about another part of the request, for checks that are used on more than one.
    #[must_use]
    pub const fn located(mut self, location: Location) -> Self {
        self.location = location;
        self
    }

    /// Moves the pointer under `prefix`, for checks written against a part of the body.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.pointer = Cow::Owned(format!("{prefix}{}", self.pointer));
        self
    }
}

/// One segment of a pointer, escaped as RFC 6901 §3 asks: `a/b~c` becomes `/a~1b~0c`.
pub(crate) fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 1);
    out.push('/');
    for c in name.chars() {
        match c {
            '~' => out.push_str("~0"),
            '/' => out.push_str("~1"),
            c => out.push(c),
        }
    }
    out
}

impl Serialize for Violation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("pointer", &self.pointer)?;
        out.serialize_entry("location", self.location.as_str())?;
        out.serialize_entry("code", &self.code)?;
        if !self.params.is_empty() {
            out.serialize_entry("params", &Params(&self.params))?;
        }
        if let Some(detail) = &self.detail {
            out.serialize_entry("detail", detail)?;
        }
        out.end()
    }
}

/// Parameters as an object, in the order of their names.
struct Params<'a>(&'a [(Cow<'static, str>, Value)]);

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}",
            self.location.as_str(),
            self.pointer,
            self.code
        )?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped_and_rooted() {
        assert_eq!(Violation::query("a/b~c", "x").pointer(), "/a~1b~0c");
        assert_eq!(Violation::body("amount", "x").pointer(), "/amount");
        assert_eq!(Violation::body("", "x").pointer(), "");
        assert_eq!(Violation::header("X-Tenant", "x").pointer(), "/x-tenant");
        assert_eq!(
            Violation::body("/sku", "x").under("/lines/3").pointer(),
            "/lines/3/sku"
        );
    }

    #[test]
    fn the_wire_form_is_stable() {
        let json = serde_json::to_string(
            &Violation::body("/amount", "too_small").with_detail("must be at least 1"),
        )
        .unwrap();
        assert_eq!(
            json,
            r#"{"pointer":"/amount","location":"body","code":"too_small","detail":"must be at least 1"}"#
        );
    }

    #[test]
    fn parameters_are_sorted_bounded_and_unique() {
        let violation = Violation::body("/amount", "out_of_range")
            .with_param("min", 0)
            .with_param("max", 9)
            .with_param("min", 1);
        assert_eq!(
            serde_json::to_string(&violation).unwrap(),
            r#"{"pointer":"/amount","location":"body","code":"out_of_range","params":{"max":9,"min":1}}"#
        );
        let many = (0..100).fold(violation, |v, i| v.with_param(format!("p{i}"), i));
        assert_eq!(many.params().count(), PARAMS_MAX);
    }
}
