//! The entry codec: committed bytes of every version, damage, and random entries.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// `encode(&golden())` of the build that introduced codec 5. Never regenerate it: a failing test means that
/// users' data has become unreadable.
const GOLDEN: &[u8] = include_bytes!("testdata/entry-v5.bin");

/// `encode(&golden_v4())` of the build that introduced codec 4.
const GOLDEN_V4: &[u8] = include_bytes!("testdata/entry-v4.bin");

/// Entries of earlier versions, which are aliases.
const ALIAS_V3: &[u8] = include_bytes!("testdata/entry-v3.bin");

/// The golden entry as encoded by the build that introduced codec 2.
const ALIAS_V2: &[u8] = include_bytes!("testdata/entry-v2.bin");
/// The golden entry as encoded by the build that introduced codec 1.
const GOLDEN_V1: &[u8] = include_bytes!("testdata/entry-v1.bin");

fn golden() -> Entry {
    Entry {
        key: CacheKey::from_bytes([7; 32]),
        scope: Scope::from_bytes([9; 32]),
        owner: Owner::Tenant("acme".to_owned()),
        namespace: "support".to_owned(),
        requested_model: "auto".to_owned(),
        text: Some("how do I reset my password?".to_owned()),
        embedding: Embedding::of_unit_length(vec![0.6, -0.8, 0.0]),
        embedder: "minilm-int8".to_owned(),
        completion: Completion {
            content: "Open the settings – then “Security”.".to_owned(),
            tool_calls: Some(json!([{ "id": "call_1", "function": { "name": "reset", "arguments": "{}" } }])),
            finish_reason: FinishReason::Other("paused".to_owned()),
            model: "gpt-4o".to_owned(),
            tier: "hot".to_owned(),
            usage: Usage {
                prompt_tokens: 300,
                completion_tokens: 20,
                cached_prompt_tokens: 256,
                cache_write_tokens: 12,
                reasoning_tokens: 8,
                cost_usd: 0.00095,
                estimated: true,
            },
            reasoning: Some(Reasoning { text: "Settings, I think.".to_owned(), field: ReasoningField::Both }),
            refusal: Some("No – never.".to_owned()),
            extra: ReplyFields {
                message: fields(&json!({ "annotations": [{ "type": "url_citation" }] })),
                choice: fields(&json!({ "native_finish_reason": "end" })),
                reply: fields(&json!({ "system_fingerprint": "fp_1" })),
            },
        },
        tags: vec!["faq".to_owned(), "v2".to_owned()],
        created: UNIX_EPOCH + Duration::from_nanos(1_790_000_000_123_456_789),
        expires: UNIX_EPOCH + Duration::from_secs(1_790_086_400),
        stale_for: Duration::from_secs(600),
        difficulty: Some(Difficulty::Hard),
    }
}

fn fields(value: &serde_json::Value) -> serde_json::Map<String, serde_json::Value> {
    value.as_object().expect("an object").clone()
}

/// The golden entry with the fields of codec 4.
fn golden_v4() -> Entry {
    let Entry { completion, .. } = golden();
    let usage =
        Usage { cached_prompt_tokens: 0, cache_write_tokens: 0, reasoning_tokens: 0, ..completion.usage };
    let completion =
        Completion { usage, reasoning: None, refusal: None, extra: ReplyFields::default(), ..completion };
    Entry { completion, ..golden() }
}

/// An entry without any optional part.
fn smallest() -> Entry {
    Entry {
        owner: Owner::Shared,
        text: None,
        embedding: None,
        tags: Vec::new(),
        difficulty: None,
        completion: Completion { tool_calls: None, ..golden_v4().completion },
        ..golden()
    }
}

/// The payload with a valid version and checksum, to reach the checks of the fields.
fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(payload.len());
    writer.0.extend_from_slice(payload);
    writer.finish()
}

#[test]
fn the_committed_bytes_of_version_5_are_read_and_written() {
    assert_eq!(decode(GOLDEN), Ok(golden()));
    assert_eq!(encode(&golden()), GOLDEN);
}

#[test]
fn the_committed_bytes_of_version_4_are_read() {
    assert_eq!(decode(GOLDEN_V4), Ok(golden_v4()));
    assert_eq!(decode(&encode(&golden_v4())), Ok(golden_v4()), "written again as version 5");
}

/// An alias has no answer: served as an entry, its prompt would get an empty one.
#[test]
fn aliases_of_versions_2_and_3_are_refused() {
    for bytes in [ALIAS_V2, ALIAS_V3] {
        assert_eq!(decode(bytes), Err(CodecError::Alias));
    }
}

#[test]
fn an_answer_is_read_without_its_vector() {
    assert_eq!(decode_answer(GOLDEN), Ok(Entry { embedding: None, ..golden() }));
    assert_eq!(decode_answer(&encode(&smallest())), Ok(smallest()));
    let payload = &GOLDEN[HEADER..];
    for length in 0..payload.len() {
        assert!(decode_answer(&sealed(&payload[..length])).is_err(), "cut to {length}");
    }
}

#[test]
fn the_committed_bytes_of_version_1_are_read() {
    let without = Entry { stale_for: Duration::ZERO, difficulty: None, ..golden_v4() };
    assert_eq!(decode(GOLDEN_V1), Ok(without.clone()));
    assert_eq!(decode(&encode(&without)), Ok(without), "written again as version 5");
}

#[test]
fn an_entry_without_optional_parts_is_read_as_written() {
    assert_eq!(decode(&encode(&smallest())), Ok(smallest()));
}

#[test]
fn a_newer_version_is_distinguished_from_damage() {
    let mut bytes = GOLDEN.to_vec();
    bytes[0] = VERSION + 1;
    assert_eq!(decode(&bytes), Err(CodecError::Newer(VERSION + 1)));
    bytes[0] = 0;
    assert_eq!(decode(&bytes), Err(CodecError::Damaged("version 0")));
}

#[test]
fn every_cut_and_every_changed_byte_is_an_error() {
    for length in 0..GOLDEN.len() {
        assert!(decode(&GOLDEN[..length]).is_err(), "cut to {length}");
    }
    for (golden, position) in
        [GOLDEN, ALIAS_V2].iter().flat_map(|golden| (0..golden.len()).map(move |at| (golden, at)))
    {
        let mut bytes = golden.to_vec();
        bytes[position] ^= 0x10;
        assert!(decode(&bytes).is_err(), "changed byte {position}");
    }
}

/// The fields must detect truncation by themselves when the checksum is valid.
#[test]
fn every_cut_with_a_valid_checksum_is_an_error() {
    let payload = &GOLDEN[HEADER..];
    for length in 0..payload.len() {
        assert!(decode(&sealed(&payload[..length])).is_err(), "cut to {length}");
    }
    let longer = [payload, &[0]].concat();
    assert_eq!(decode(&sealed(&longer)), Err(CodecError::Damaged("bytes after the end")));
}

#[test]
fn a_length_beyond_the_bytes_allocates_nothing() {
    let mut writer = Writer::with_capacity(0);
    writer.0.extend_from_slice(&GOLDEN[HEADER..HEADER + 80]);
    writer.0.push(owner::TENANT);
    writer.number(u64::MAX);
    assert_eq!(decode(&writer.finish()), Err(CodecError::Damaged("length")));
}

#[test]
fn a_vector_that_is_not_of_unit_length_is_an_error() {
    let read = |bytes| embedding(&mut Reader::new(bytes));
    assert_eq!(read(&[1, 0, 0, 0, 0x40]), Err(Malformed("embedding")));
    assert_eq!(read(&[1, 0, 0, 0xc0, 0x7f]), Err(Malformed("embedding")), "NaN");
}

#[test]
fn numbers_are_read_as_written() {
    for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
        let mut writer = Writer(Vec::new());
        writer.number(n);
        assert_eq!(Reader::new(&writer.0).leb128(), Ok(n));
    }
}

prop_compose! {
    fn entries()(
        (key, scope) in any::<([u8; 32], [u8; 32])>(),
        (tenant, namespace, requested_model, text, embedder) in
            any::<(Option<String>, String, String, Option<String>, String)>(),
        vector in proptest::option::of(proptest::collection::vec(-1.0_f32..1.0, 1..40)),
        (content, tool_calls, reason, model, tier) in any::<(String, Option<Vec<String>>, String, String, String)>(),
        (prompt_tokens, completion_tokens, cents, estimated) in any::<(u64, u64, u32, bool)>(),
        (cached_prompt_tokens, cache_write_tokens, reasoning_tokens) in any::<(u64, u64, u64)>(),
        (thought, refusal, fingerprint) in any::<(Option<String>, Option<String>, Option<String>)>(),
        tags in any::<Vec<String>>(),
        (created, ttl_ms, stale_ms) in any::<(u64, u32, u32)>(),
        difficulty in proptest::option::of(proptest::sample::select(Difficulty::ALL.as_slice())),
    ) -> Entry {
        let created = UNIX_EPOCH + Duration::from_nanos(created / 2);
        Entry {
            key: CacheKey::from_bytes(key),
            scope: Scope::from_bytes(scope),
            owner: tenant.map_or(Owner::Shared, Owner::Tenant),
            namespace,
            requested_model,
            text,
            embedding: vector.and_then(Embedding::normalized),
            embedder,
            completion: Completion {
                content,
                tool_calls: tool_calls.map(|calls| json!(calls)),
                finish_reason: FinishReason::parse(&reason),
                model,
                tier,
                usage: Usage {
                    prompt_tokens,
                    completion_tokens,
                    cached_prompt_tokens,
                    cache_write_tokens,
                    reasoning_tokens,
                    cost_usd: f64::from(cents) / 100.0,
                    estimated,
                },
                reasoning: thought.map(|text| Reasoning { text, field: ReasoningField::Reasoning }),
                refusal,
                extra: ReplyFields {
                    reply: fingerprint.map(|text| ("system_fingerprint".to_owned(), json!(text))).into_iter().collect(),
                    ..ReplyFields::default()
                },
            },
            tags,
            created,
            expires: created + Duration::from_millis(ttl_ms.into()),
            stale_for: Duration::from_millis(stale_ms.into()),
            difficulty,
        }
    }
}

proptest! {
    #[test]
    fn an_entry_is_read_exactly_as_written(entry in entries()) {
        prop_assert_eq!(decode(&encode(&entry)), Ok(entry));
    }

    #[test]
    fn random_bytes_are_an_error_and_no_panic(junk in any::<Vec<u8>>()) {
        prop_assert!(decode(&junk).is_err());
        prop_assert!(decode(&sealed(&junk)).is_err());
    }

    #[test]
    fn a_damaged_payload_never_panics(position in any::<proptest::sample::Index>(), byte: u8) {
        let mut payload = GOLDEN[HEADER..].to_vec();
        let position = position.index(payload.len());
        payload[position] = byte;
        let _ = decode(&sealed(&payload));
    }
}
