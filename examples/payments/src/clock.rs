//! The one place where the machine's wall time enters: what people are shown, and the age of signed messages.
//! Leases and expiry go by the database's clock.

use std::time::SystemTime;

/// The time, as this machine has it.
#[expect(clippy::disallowed_methods, reason = "the edge where wall time enters")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
