//! Protobuf codec that reports a request that cannot be decoded as `INVALID_ARGUMENT`, naming the field. Tonic's own
//! codec reports `INTERNAL`.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use super::status;
use crate::error::Error;

/// Encodes `T`, decodes `U`.
#[derive(Debug)]
pub struct ProtoCodec<T, U>(PhantomData<(T, U)>);

/// Decodes `U`.
#[derive(Debug)]
pub struct ProtoDecoder<U>(PhantomData<U>);

impl<T, U> Default for ProtoCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for ProtoCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProtoDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(tonic::codec::BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProtoDecoder(PhantomData)
    }
}

impl<U: Message + Default> Decoder for ProtoDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let decoded = U::decode(from).map_err(|error| {
            let (field, problem) = field_and_problem(&error.to_string());
            status::of(&Error::invalid(field, problem))
        });
        Ok(Some(decoded?))
    }
}

/// Splits prost's message, which never quotes a value: a preamble, the fields as `Type.field` from the innermost out,
/// and the problem.
fn field_and_problem(message: &str) -> (String, String) {
    let mut parts = message.split(": ").skip(1).peekable();
    let mut path = Vec::new();
    while let Some((_, field)) = parts.peek().and_then(|part| part.split_once('.')) {
        path.insert(0, field.to_owned());
        parts.next();
    }
    let problem = parts.collect::<Vec<_>>().join(": ");
    (if path.is_empty() { "request".to_owned() } else { path.join(".") }, problem)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::field_and_problem;
    use crate::grpc::proto::LookupRequest;

    #[test]
    fn decoding_errors_name_the_field_by_its_proto_path() {
        for (bytes, field, problem) in [
            (
                &b"\x0a\x03\x0a\x01\xff"[..],
                "prompt.namespace",
                "invalid string value: data is not UTF-8 encoded",
            ),
            (
                b"\x0a\x05\x1a\x03\x0a\x01\xff",
                "prompt.messages.role",
                "invalid string value: data is not UTF-8 encoded",
            ),
            (b"\x0a\xff", "prompt", "invalid varint"),
            (b"\x07", "request", "invalid wire type value: 7"),
        ] {
            let message = LookupRequest::decode(bytes).unwrap_err().to_string();
            assert_eq!(field_and_problem(&message), (field.to_owned(), problem.to_owned()), "{message}");
        }
    }
}
