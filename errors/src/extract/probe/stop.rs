//! Why one reading stopped: which question had no answer, and where. The text that serde would make of
//! it is thrown away.

use std::fmt;

use serde::de;

use super::Kind;

/// Why a pass stopped.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) kind: Kind,
    pub(super) at: Option<Vec<String>>,
    pub(super) asked: Option<&'static str>,
    pub(super) member: Option<Member>,
}

#[derive(Debug)]
pub(super) enum Member {
    Missing(&'static str),
    Unknown(String),
}

impl Stop {
    pub(super) fn of(kind: Kind) -> Self {
        Self {
            kind,
            at: None,
            asked: None,
            member: None,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self::of(Kind::Invalid)
    }

    fn invalid_type(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self::of(Kind::WrongType)
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        use de::Unexpected::{Float, Signed, Unsigned};
        Self::of(match unexpected {
            Unsigned(_) | Signed(_) | Float(_) => Kind::OutOfRange,
            _ => Kind::Invalid,
        })
    }

    fn invalid_length(_: usize, _: &dyn de::Expected) -> Self {
        Self::of(Kind::WrongLength)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::of(Kind::UnknownValue(expected))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self {
            member: Some(Member::Unknown(field.to_owned())),
            ..Self::of(Kind::UnknownMember)
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            member: Some(Member::Missing(field)),
            ..Self::of(Kind::Required)
        }
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self::of(Kind::Repeated)
    }
}
