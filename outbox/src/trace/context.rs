//! What a `traceparent` and a `tracestate` are, by W3C Trace Context, level 1 (2021). Pure.

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Parent {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    pub(crate) flags: u8,
}

impl Parent {
    /// Reads one. Of a version to come, the beginning means what it means in version 0.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(5, '-');
        let mut hex = |digits: usize| {
            let field = fields.next().filter(|field| field.len() == digits)?;
            let plain = field
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if plain {
                u128::from_str_radix(field, 16).ok()
            } else {
                None
            }
        };
        let version = hex(2)?;
        let (trace_id, span_id, flags) = (hex(32)?, hex(16)?, hex(2)?);
        let more = fields.next().is_some();
        let known = (version == 0 && !more) || (1..0xff).contains(&version);
        let named = trace_id != 0 && span_id != 0;
        (known && named).then_some(Self {
            trace_id,
            span_id: span_id as u64,
            flags: flags as u8,
        })
    }
}

/// The most of it that is kept; the standard asks for 512 at least.
const TRACESTATE_BYTES_MAX: usize = 4096;

/// Whether it is a list of at most 32 `key=value`, no key twice.
pub(crate) fn is_tracestate(text: &str) -> bool {
    if text.len() > TRACESTATE_BYTES_MAX {
        return false;
    }
    let members = text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']));
    let mut keys: Vec<&str> = Vec::new();
    for member in members.filter(|member| !member.is_empty()) {
        let Some((key, value)) = member.split_once('=') else {
            return false;
        };
        if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == 32 {
            return false;
        }
        keys.push(key);
    }
    !keys.is_empty()
}

/// A vendor's name of up to 256 characters, or `tenant@vendor` of up to 241 and 14.
fn is_key(key: &str) -> bool {
    let lower = |b: u8| b.is_ascii_lowercase();
    let rest = |b: u8| lower(b) || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*' | b'/');
    let name = |name: &str, max: usize, digit_first: bool| {
        let first = name.bytes().next();
        first.is_some_and(|b| lower(b) || (digit_first && b.is_ascii_digit()))
            && name.len() <= max
            && name.bytes().all(rest)
    };
    match key.split_once('@') {
        Some((tenant, vendor)) => name(tenant, 241, true) && name(vendor, 14, false),
        None => name(key, 256, false),
    }
}

/// Up to 256 printable characters but `,` and `=`.
fn is_value(value: &str) -> bool {
    let printable = |b: u8| matches!(b, b' '..=b'~') && b != b',' && b != b'=';
    (1..=256).contains(&value.len()) && value.bytes().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_by_the_standards_rules() {
        let parent = Parent::parse("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01");
        let expected = Parent {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span_id: 0x00f0_67aa_0ba9_02b7,
            flags: 1,
        };
        assert_eq!(parent, Some(expected));
        // Another version, with and without something behind.
        for good in [
            "cc-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            "cc-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01-what-the-future-brings",
        ] {
            assert_eq!(Parent::parse(good), Some(expected), "{good}");
        }
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7",
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01-",
            "cc-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01.more",
            "ff-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            "00-0AF7651916CD43DD8448EB211C80319C-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-00f067aa0ba902b7-01",
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-1",
            "00-+af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            "00-0af7651916cd43dd8448eb211c80319ü-00f067aa0ba902b7-01",
            " 00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tracestate_is_read_by_the_standards_rules() {
        let key = "k".repeat(256);
        let tenant = format!("{}@{}", "t".repeat(241), "v".repeat(14));
        let full: Vec<String> = (0..32).map(|n| format!("k{n}=1")).collect();
        for good in [
            "congo=t61rcWkgMzE",
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            "a=1, b=2\t,,c= x",
            "0tenant@vendor=1",
            &format!("{key}=1"),
            &format!("{tenant}=1"),
            &format!("a={}", "v".repeat(256)),
            &full.join(","),
        ] {
            assert!(is_tracestate(good), "{good}");
        }
        for bad in [
            "",
            " , ",
            "a",
            "=1",
            "a=",
            "A=1",
            "0a=1",
            "a@=1",
            "@v=1",
            "a@b@c=1",
            "a@0v=1",
            "a b=1",
            "a=1=2",
            "a=ü",
            "a=1\n",
            "a=1,a=2",
            &format!("{key}k=1"),
            &format!("t{tenant}=1"),
            &format!("a={}", "v".repeat(257)),
            &(full.join(",") + ",one=more"),
            &format!("a={}", ",".repeat(TRACESTATE_BYTES_MAX)),
        ] {
            assert!(!is_tracestate(bad), "{bad}");
        }
    }
}
