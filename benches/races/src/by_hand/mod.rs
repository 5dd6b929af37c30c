//! The lower bounds: what somebody writes by hand who needs just this, as layers whose futures have names.

mod retry;

pub use self::retry::{Retry, Tokens, retry};
