//! The lower bounds: what somebody writes by hand who needs just this, as layers whose futures have names.

mod breaker;
mod retry;

pub use self::breaker::{Breaker, Circuit, InARow, OfTheLast, OverTime, Rule};
pub use self::retry::{Retry, Tokens, retry};
