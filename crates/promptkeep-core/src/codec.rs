//! Reads the binary formats of stored and published data. Integers are little-endian unless a method says otherwise.
//! Never panics, whatever the bytes, and never allocates more than a small multiple of them.

/// Bytes that are not what a reader expects. Carries none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub struct Malformed(pub &'static str);

/// Fails if `valid` is false; `what` names the part that is wrong.
pub const fn ensure(valid: bool, what: &'static str) -> Result<(), Malformed> {
    if valid { Ok(()) } else { Err(Malformed(what)) }
}

/// A cursor over encoded bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if bytes are left: they would be a field that this version does not know.
    pub fn end(&self) -> Result<(), Malformed> {
        ensure(self.is_empty(), "bytes after the end")
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Fails unless the bytes `expected` come next.
    pub fn expect(&mut self, expected: &[u8], what: &'static str) -> Result<(), Malformed> {
        ensure(self.take(expected.len())? == expected, what)
    }

    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    /// One byte, 0 or 1.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("flag")),
        }
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn f64(&mut self) -> Result<f64, Malformed> {
        self.array().map(f64::from_le_bytes)
    }

    /// A finite number.
    pub fn f32(&mut self) -> Result<f32, Malformed> {
        let number = f32::from_le_bytes(self.array()?);
        ensure(number.is_finite(), "number").map(|()| number)
    }

    /// A `u32` that counts elements, at most `max`.
    pub fn count(&mut self, max: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        ensure(count <= max, "count").map(|()| count)
    }

    /// An unsigned LEB128 number of at most 64 bits.
    pub fn leb128(&mut self) -> Result<u64, Malformed> {
        let mut n = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            n |= bits << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(Malformed("number"))
    }

    /// A LEB128 number of elements of `element_size` bytes or more each. Fails if the remaining bytes cannot hold them.
    pub fn length(&mut self, element_size: usize) -> Result<usize, Malformed> {
        let length = usize::try_from(self.leb128()?).unwrap_or(usize::MAX);
        ensure(length <= self.0.len() / element_size, "length").map(|()| length)
    }

    /// UTF-8 after its LEB128 length.
    pub fn string(&mut self) -> Result<String, Malformed> {
        let length = self.length(1)?;
        self.utf8(length)
    }

    /// `length` bytes of UTF-8.
    pub fn utf8(&mut self, length: usize) -> Result<String, Malformed> {
        let text = str::from_utf8(self.take(length)?).map_err(|_| Malformed("UTF-8"))?;
        Ok(text.to_owned())
    }

    /// A value after a flag that says whether it is there.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Values after their LEB128 number.
    pub fn list<T>(
        &mut self,
        read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let length = self.length(1)?;
        self.repeat(length, read)
    }

    /// `count` values. The caller bounds `count`.
    pub fn repeat<T, C: FromIterator<T>>(
        &mut self,
        count: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<C, Malformed> {
        (0..count).map(|_| read(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leb128_numbers_beyond_64_bits_are_an_error() {
        assert_eq!(Reader::new(&[0x80, 0x01]).leb128(), Ok(128));
        let largest = [[0xff; 9].as_slice(), &[0x01]].concat();
        assert_eq!(Reader::new(&largest).leb128(), Ok(u64::MAX));
        let too_large = [[0xff; 9].as_slice(), &[0x02]].concat();
        assert_eq!(Reader::new(&too_large).leb128(), Err(Malformed("number")));
    }

    #[test]
    fn a_length_beyond_the_bytes_is_an_error() {
        assert_eq!(Reader::new(&[2, b'a']).string(), Err(Malformed("length")));
        assert_eq!(Reader::new(&[1, b'a']).string(), Ok("a".to_owned()));
        assert_eq!(Reader::new(&[9, 0, 0, 0]).count(8), Err(Malformed("count")));
    }
}
