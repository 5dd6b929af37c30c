//! A key's value in a cursor: a tag, then the value.

use uuid::Uuid;

use super::buffer::{Buffer, take, take_sized, take_text};
use crate::cursor::CursorError;
use crate::decimal;
use crate::key::Key;

/// Tags of values; never reuse one.
mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
    pub(super) const I64: u8 = 3;
    pub(super) const F64: u8 = 4;
    pub(super) const TEXT: u8 = 5;
    pub(super) const BYTES: u8 = 6;
    pub(super) const UUID: u8 = 7;
    pub(super) const MICROS: u8 = 8;
    pub(super) const U64: u8 = 9;
    pub(super) const DECIMAL: u8 = 10;
    pub(super) const DATE: u8 = 11;
    pub(super) const TIME: u8 = 12;
}

pub(super) fn push<const N: usize>(out: &mut Buffer<N>, key: &Key) -> Result<(), CursorError> {
    match key {
        Key::Null => out.push(&[tag::NULL]),
        Key::Bool(false) => out.push(&[tag::FALSE]),
        Key::Bool(true) => out.push(&[tag::TRUE]),
        Key::I64(value) => out.tagged(tag::I64, &value.to_be_bytes()),
        Key::F64Bits(bits) => out.tagged(tag::F64, &bits.to_be_bytes()),
        Key::Text(value) => out.sized(tag::TEXT, value.as_bytes()),
        Key::Bytes(value) => out.sized(tag::BYTES, value),
        Key::Uuid(value) => out.tagged(tag::UUID, value.as_bytes()),
        Key::Micros(value) => out.tagged(tag::MICROS, &value.to_be_bytes()),
        Key::U64(value) => out.tagged(tag::U64, &value.to_be_bytes()),
        Key::Decimal(value) => out.sized(tag::DECIMAL, value.as_bytes()),
        Key::Date(value) => out.tagged(tag::DATE, &value.to_be_bytes()),
        Key::Time(value) => out.tagged(tag::TIME, &value.to_be_bytes()),
    }
}

pub(super) fn take_key(rest: &mut &[u8]) -> Result<Key, CursorError> {
    let [tag] = take(rest)?;
    Ok(match tag {
        tag::NULL => Key::Null,
        tag::FALSE => Key::Bool(false),
        tag::TRUE => Key::Bool(true),
        tag::I64 => Key::I64(i64::from_be_bytes(take(rest)?)),
        tag::F64 => Key::F64Bits(u64::from_be_bytes(take(rest)?)),
        tag::TEXT => Key::Text(take_text(rest)?.to_owned()),
        tag::BYTES => Key::Bytes(take_sized(rest)?.to_vec()),
        tag::UUID => Key::Uuid(Uuid::from_bytes(take(rest)?)),
        tag::MICROS => Key::Micros(i64::from_be_bytes(take(rest)?)),
        tag::U64 => Key::U64(u64::from_be_bytes(take(rest)?)),
        tag::DECIMAL => match take_text(rest)? {
            text if decimal::is_decimal(text) => Key::Decimal(text.to_owned()),
            _ => return Err(CursorError::Malformed),
        },
        tag::DATE => Key::Date(i32::from_be_bytes(take(rest)?)),
        tag::TIME => Key::Time(i64::from_be_bytes(take(rest)?)),
        _ => return Err(CursorError::Malformed),
    })
}
