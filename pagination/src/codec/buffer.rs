//! Bytes as they are put together and taken apart, on the stack.

use crate::cursor::CursorError;

/// A cursor's bytes while they are written.
pub(super) struct Buffer<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Buffer<N> {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The bytes, and the zeros after them.
    pub(super) const fn all(&self) -> &[u8] {
        &self.bytes
    }

    #[cfg(feature = "aead")]
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), CursorError> {
        let end = self.len + bytes.len();
        self.bytes
            .get_mut(self.len..end)
            .ok_or(CursorError::TooLong)?
            .copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    pub(super) fn tagged<const M: usize>(
        &mut self,
        tag: u8,
        bytes: &[u8; M],
    ) -> Result<(), CursorError> {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let (first, room) = room.split_first_mut().ok_or(CursorError::TooLong)?;
        *room.first_chunk_mut().ok_or(CursorError::TooLong)? = *bytes;
        *first = tag;
        self.len += 1 + M;
        Ok(())
    }

    /// With the length, in two bytes, between tag and bytes.
    pub(super) fn sized(&mut self, tag: u8, bytes: &[u8]) -> Result<(), CursorError> {
        let len = u16::try_from(bytes.len()).map_err(|_| CursorError::TooLong)?;
        self.tagged(tag, &len.to_be_bytes())?;
        self.push(bytes)
    }
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CursorError> {
    let (head, tail) = rest.split_first_chunk().ok_or(CursorError::Malformed)?;
    *rest = tail;
    Ok(*head)
}

pub(super) fn take_sized<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8], CursorError> {
    let len = u16::from_be_bytes(take(rest)?);
    let (head, tail) = rest
        .split_at_checked(usize::from(len))
        .ok_or(CursorError::Malformed)?;
    *rest = tail;
    Ok(head)
}

pub(super) fn take_text<'b>(rest: &mut &'b [u8]) -> Result<&'b str, CursorError> {
    str::from_utf8(take_sized(rest)?).map_err(|_| CursorError::Malformed)
}
