//! Low-water marks: up to where a lane is known to be done with, so that claims need not step over what is gone. Pure.
//!
//! Deleted rows stay in a lane's index for as long as somebody's snapshot might want them, and each claim that begins at
//! the lane's head steps over them. A mark lets it begin behind them. What makes that more than `id > the last one seen`
//! are writers that have drawn a low id and not committed yet. Two facts bound them:
//!
//! - A writer gets its stamp before it draws an id (the enqueueing statement sees to that), and ids are drawn in order.
//!   So whoever holds an id up to one that was *seen* has a lower stamp than a transaction that began after that look.
//! - Once a snapshot says that all writers with lower stamps have ended, what they committed is in it. The head of a
//!   lane in that snapshot is then the lowest there will ever be up to the id that was seen.
//!
//! A writer that stays open must not stall the mark for ever: after [`GRACE`] it is remembered as a *straggler*, with the
//! id above which its rows can be, and the mark passes. When it has ended, all lanes are looked at from there once more.
//! Where there are too many to remember, the mark waits.
//!
//! While a sink is down, what waits for it stands at the heads, and other marks say up to where there is nothing else. What
//! holds for the first holds for them, of the rows of all other topics: so each row that waits is stepped over once and not
//! with every look. A look at the heads takes in so many rows and no more; a mark goes as far as that, and the lane is claimed
//! from when it has arrived. In the same way, where that is much, what waits behind a message of its key that waits for its
//! retry is passed until the time of that. Which topics are shut changes with every probe: marks of a few sets of them are
//! kept, one within the other, so that whatever comes back finds those that still hold.

mod horizon;
mod layers;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::horizon::GRACE;
pub(crate) use self::{
    horizon::Horizon,
    layers::{Held, Layers, Skips, View},
};
