//! The lower bounds: what somebody writes by hand who needs just this, as layers whose futures have names.

mod breaker;
mod retry;
mod timeout;

pub use self::breaker::{Breaker, Circuit, InARow, OfTheLast, OverTime, Rejected, Rule, is_inner};
pub use self::retry::{Retry, Tokens, retry};
pub use self::timeout::Timeout;
