//! A line of recorded traffic: a prompt's text or the body of an OpenAI chat completion, and its answer if the record
//! has one. Bodies are decoded as the HTTP server decodes them.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::ANSWER_TOKENS;
use crate::{
    config::Config,
    http,
    model::{AUTO, Tier},
    offline::{ModelAnswer, Tokens, TrafficFileError, read_lines},
    pipeline::DEFAULT_NAMESPACE,
    prompt::Prompt,
    upstream::tokens,
};

/// Fields of the record. All other fields belong to the request, as over HTTP: they are part of its key, or make it
/// one that the cache passes through.
const RECORD_FIELDS: [&str; 4] = ["at", "id", "time", "timestamp"];

/// Repeated to make a stand-in answer; the estimate counts four letters as one token.
const STAND_IN: &str = "word";

/// Where the answers of a run come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerSource {
    /// From the traffic: the cache compares them and learns.
    Recorded,
    /// One text for every request, because some requests have no answer. Each counts the tokens of its record, or
    /// [`ANSWER_TOKENS`].
    StandIn,
}

/// One request.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// Number of its line, counted from 1.
    pub line: usize,
    pub namespace: String,
    /// `None`: the cache passes it through, as it would over HTTP.
    pub prompt: Option<Prompt>,
    pub answer: Option<String>,
    pub usage: Option<Tokens>,
}

/// Reads the requests of a file.
///
/// # Errors
/// [`TrafficFileError`], naming the file and the line.
pub fn read(path: &Path) -> Result<Vec<RecordedRequest>, TrafficFileError> {
    let numbered = |(line, request)| RecordedRequest { line, ..request };
    Ok(read_lines(path, parse)?.into_iter().map(numbered).collect())
}

/// Checks that every model named in the traffic is one of `config`, a tier or `auto`.
pub(super) fn check_models(
    path: &Path,
    requests: &[RecordedRequest],
    config: &Config,
) -> Result<(), TrafficFileError> {
    let is_known = |name: &str| {
        name == AUTO || Tier::parse(name).is_some() || config.models.iter().any(|m| m.id == name)
    };
    let mut named = requests.iter().filter_map(|request| Some((request.line, request.model()?)));
    match named.find(|(_, model)| !is_known(model)) {
        None => Ok(()),
        Some((line, model)) => Err(TrafficFileError::Line {
            path: path.display().to_string(),
            line,
            error: format!("model: {model} is no model of the configuration, no tier and not auto"),
        }),
    }
}

fn parse(line: &str) -> Result<RecordedRequest, String> {
    let mut fields: Map<String, Value> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    fields.retain(|_, value| !value.is_null());
    let namespace = take_text(&mut fields, "namespace")?.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let answer = take_text(&mut fields, "answer")?;
    let usage = fields.remove("usage").map(serde_json::from_value).transpose();
    let usage = usage.map_err(|error| format!("usage: {error}"))?;
    if let Some(text) = take_text(&mut fields, "prompt")? {
        let messages = json!([{ "role": "user", "content": text }]);
        if fields.insert("messages".to_owned(), messages).is_some() {
            return Err("needs prompt or messages, not both".to_owned());
        }
    }
    if !fields.contains_key("messages") {
        return Err("needs a prompt (a text) or messages (as of a chat completion)".to_owned());
    }
    fields.retain(|name, _| !RECORD_FIELDS.contains(&name.as_str()));
    let prompt = http::prompt_of_chat(fields).map_err(|error| error.to_string())?;
    let prompt = prompt.map(|prompt| Prompt { namespace: namespace.clone(), ..prompt });
    Ok(RecordedRequest { line: 0, namespace, prompt, answer, usage })
}

fn take_text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name}: must be a string")),
    }
}

impl RecordedRequest {
    /// Whether the cache would have nothing to learn from: the request is cacheable but has no answer.
    pub fn lacks_answer(&self) -> bool {
        self.prompt.is_some() && self.answer.is_none()
    }

    /// The model named in the request.
    pub fn model(&self) -> Option<&str> {
        self.prompt.as_ref().map(|prompt| prompt.model.as_str()).filter(|name| !name.is_empty())
    }

    /// Builds the model's answer to this request.
    pub fn model_answer(&self, source: AnswerSource) -> ModelAnswer {
        match (source, &self.answer) {
            (AnswerSource::Recorded, Some(answer)) => ModelAnswer { text: answer.clone(), usage: self.usage },
            _ => ModelAnswer {
                text: STAND_IN.repeat(ANSWER_TOKENS),
                usage: self.usage.or_else(|| self.estimate()),
            },
        }
    }

    /// Estimates the tokens of the recorded answer, which a stand-in replaces.
    fn estimate(&self) -> Option<Tokens> {
        let (prompt, answer) = (self.prompt.as_ref()?, self.answer.as_ref()?);
        let prompt_tokens = tokens::estimate_prompt(prompt);
        Some(Tokens { prompt_tokens, completion_tokens: tokens::estimate(answer) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &Value) -> RecordedRequest {
        parse(&line.to_string()).unwrap()
    }

    #[test]
    fn a_text_is_one_user_turn_and_fields_of_the_record_are_not_part_of_the_request() {
        let plain = parsed(&json!({"prompt": "A?", "namespace": "shop", "answer": "B."}));
        let logged = parsed(&json!({
            "messages": [{"role": "user", "content": "A?"}],
            "namespace": "shop", "stream": true, "at": "2026-01-01", "id": "r-1", "temperature": null,
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        }));
        assert_eq!(plain.prompt, logged.prompt);
        let recorded = plain.model_answer(AnswerSource::Recorded);
        assert_eq!((recorded.text.as_str(), recorded.usage), ("B.", None));
        let stand_ins = [&plain, &logged].map(|request| request.model_answer(AnswerSource::StandIn));
        assert_eq!(stand_ins[0].text, stand_ins[1].text, "audits compare hits with it");
        let tokens = stand_ins.map(|answer| answer.usage.map(|usage| usage.completion_tokens));
        assert_eq!(tokens, [Some(1), Some(4)]);
        assert!(logged.lacks_answer() && !plain.lacks_answer());
    }

    #[test]
    fn an_uncacheable_request_is_passed_through() {
        let request = parsed(&json!({"prompt": "A?", "n": 2}));
        assert!(request.prompt.is_none() && !request.lacks_answer());
    }

    #[test]
    fn an_error_names_the_field() {
        for (line, expected) in [
            (json!({"text": "A?"}), "needs a prompt"),
            (json!({"prompt": "A?", "messages": []}), "not both"),
            (json!({"prompt": 1}), "prompt: must be a string"),
            (json!({"messages": [{"role": "boss", "content": "A?"}]}), "messages[0].role"),
            (json!({"prompt": "A?", "usage": {"prompt_tokens": -1}}), "usage: "),
            (json!({"prompt": "A?", "max_tokens": "many"}), "max_tokens: "),
        ] {
            let error = parse(&line.to_string()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
