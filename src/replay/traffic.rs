//! Recorded traffic: one request a line, as a text or as the body of an OpenAI chat completion, with what was
//! answered if that is known. A request is what the HTTP port takes it for.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::ANSWER_TOKENS;
use crate::{
    config::Config,
    http,
    model::{AUTO, Tier},
    offline::{LineError, Said, Tokens, read_lines},
    pipeline::DEFAULT_NAMESPACE,
    prompt::Prompt,
    upstream::tokens,
};

/// Fields of a line that are the record's. All others are the request's, as over HTTP: they may make it one that is
/// passed on, and are part of its key.
const RECORD_FIELDS: [&str; 4] = ["at", "id", "time", "timestamp"];

/// Four letters are a token to the estimate.
const STAND_IN: &str = "word";

/// What the models of a run say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// What the traffic says that they said: the cache compares it and learns.
    Theirs,
    /// Always the same, since some of the traffic does not say. It counts with the tokens that are known, or else
    /// [`ANSWER_TOKENS`].
    StandIn,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Line {
    /// Where it is in the file, counted from 1.
    pub number: usize,
    pub namespace: String,
    /// `None`: the cache passes it on, as it would over HTTP.
    pub prompt: Option<Prompt>,
    pub answer: Option<String>,
    pub usage: Option<Tokens>,
}

/// The requests of a file.
///
/// # Errors
/// [`LineError`], naming file and line.
pub fn read(path: &Path) -> Result<Vec<Line>, LineError> {
    let numbered = |(number, line)| Line { number, ..line };
    Ok(read_lines(path, parse)?.into_iter().map(numbered).collect())
}

/// Whether every model that a line names is one of `config`, a tier, or the router's to choose.
pub(super) fn check_models(path: &Path, lines: &[Line], config: &Config) -> Result<(), LineError> {
    let is_known = |name: &str| {
        name == AUTO || Tier::parse(name).is_some() || config.models.iter().any(|model| model.id == name)
    };
    match lines.iter().find(|line| line.model().is_some_and(|name| !is_known(name))) {
        None => Ok(()),
        Some(line) => Err(LineError::Line {
            path: path.display().to_string(),
            line: line.number,
            error: format!(
                "model: {} is no model of the configuration, no tier and not auto",
                line.model().unwrap_or_default()
            ),
        }),
    }
}

fn parse(line: &str) -> Result<Line, String> {
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
    Ok(Line { number: 0, namespace, prompt, answer, usage })
}

fn take_text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name}: must be a string")),
    }
}

// === impl Line ===

impl Line {
    /// What the cache would have to learn from is not there.
    pub fn lacks_answer(&self) -> bool {
        self.prompt.is_some() && self.answer.is_none()
    }

    /// The model that it names.
    pub fn model(&self) -> Option<&str> {
        self.prompt.as_ref().map(|prompt| prompt.model.as_str()).filter(|name| !name.is_empty())
    }

    /// What the model answers.
    pub fn said(&self, answers: Answers) -> Said {
        let stand_in = || STAND_IN.repeat(ANSWER_TOKENS);
        match (answers, &self.answer) {
            (Answers::Theirs, Some(answer)) => Said { text: answer.clone(), usage: self.usage },
            _ => Said { text: stand_in(), usage: self.usage.or_else(|| self.estimate()) },
        }
    }

    /// Tokens of the answer that a stand-in replaces.
    fn estimate(&self) -> Option<Tokens> {
        let (prompt, answer) = (self.prompt.as_ref()?, self.answer.as_ref()?);
        let prompt_tokens = tokens::estimate_prompt(prompt);
        Some(Tokens { prompt_tokens, completion_tokens: tokens::estimate(answer) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &Value) -> Line {
        parse(&line.to_string()).unwrap()
    }

    #[test]
    fn a_text_is_one_user_turn_and_a_record_has_more_than_a_request() {
        let plain = parsed(&json!({"prompt": "A?", "namespace": "shop", "answer": "B."}));
        let logged = parsed(&json!({
            "messages": [{"role": "user", "content": "A?"}],
            "namespace": "shop", "stream": true, "at": "2026-01-01", "id": "r-1", "temperature": null,
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        }));
        assert_eq!(plain.prompt, logged.prompt);
        let theirs = plain.said(Answers::Theirs);
        assert_eq!((theirs.text.as_str(), theirs.usage), ("B.", None));
        let stand_ins = [&plain, &logged].map(|line| line.said(Answers::StandIn));
        assert_eq!(stand_ins[0].text, stand_ins[1].text, "hits are checked against it");
        let tokens = stand_ins.map(|said| said.usage.map(|usage| usage.completion_tokens));
        assert_eq!(tokens, [Some(1), Some(4)]);
        assert!(logged.lacks_answer() && !plain.lacks_answer());
    }

    #[test]
    fn what_the_cache_cannot_hold_is_passed_on() {
        let line = parsed(&json!({"prompt": "A?", "n": 2}));
        assert!(line.prompt.is_none() && !line.lacks_answer());
    }

    #[test]
    fn a_mistake_names_its_field() {
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
