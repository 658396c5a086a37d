//! `[cache.verify]`: when a cheap model is asked whether a kept answer fits a new question, and what that may cost.

use std::{fmt, fs, io, path::PathBuf, time::Duration};

use crate::model::Tier;

/// `[cache.verify]`
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyConfig {
    pub mode: VerifyMode,
    /// Model that verifies: a model id or a tier.
    pub model: String,
    /// Timeout of one verification.
    pub timeout: Duration,
    /// Whether the routed model is called at the same time. The first usable answer wins.
    pub race: bool,
    /// Whether `Lookup` verifies too.
    pub lookup: bool,
    /// Largest cost of verifications, as a fraction of what the requests would have cost without a cache.
    pub max_share_of_spend: f64,
    /// US dollars that verifications may cost before `max_share_of_spend` applies.
    pub start_usd: f64,
    /// Maximum number of verifications per minute; further ones are skipped.
    pub max_per_minute: usize,
    /// Maximum number of verifications in flight; further ones are skipped.
    pub max_in_flight: usize,
    /// Value of one second of a caller's time, in US dollars. It is weighed against what a verification may save.
    pub usd_per_second: f64,
    /// Size to which kept answers are cut for the verifier, in bytes.
    pub max_answer_bytes: usize,
    /// Maximum size of a question in bytes; longer ones are not verified.
    pub max_question_bytes: usize,
    /// Fraction of hits approved by the verifier that is audited by a call of the routed model.
    pub audit_rate: f32,
    /// File with the verifier's instructions. `None` means the built-in ones.
    pub prompt_file: Option<PromptFile>,
}

/// When near answers are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyMode {
    /// Like `Before` where the catalog has an economy model at a provider that also serves the namespace's routed model;
    /// otherwise like `Off`.
    Auto,
    /// Before a near answer is served.
    Before,
    /// After the reply, only to learn from it.
    Background,
    Off,
}

/// A file with instructions for the verifier.
#[derive(Clone, PartialEq)]
pub struct PromptFile {
    pub path: PathBuf,
    /// The instructions in the file. Empty until loading has read it; `replay` and `tune` do not.
    instructions: String,
}

const BUILT_IN: &str = include_str!("../../prompts/verify.md");

/// Maximum size of a prompt file: the instructions are sent with every verification.
const PROMPT_FILE_MAX: u64 = 16 * 1024;

impl Default for VerifyConfig {
    fn default() -> Self {
        Self {
            mode: VerifyMode::Auto,
            model: Tier::Economy.as_str().to_owned(),
            timeout: Duration::from_millis(800),
            race: false,
            lookup: false,
            max_share_of_spend: 0.10,
            start_usd: 0.01,
            max_per_minute: 6000,
            max_in_flight: 64,
            usd_per_second: 0.0001,
            max_answer_bytes: 600,
            max_question_bytes: 8000,
            audit_rate: 0.02,
            prompt_file: None,
        }
    }
}

impl VerifyConfig {
    /// The verifier's instructions: those of `prompt_file`, or the built-in ones.
    pub fn instructions(&self) -> &str {
        match &self.prompt_file {
            Some(file) if !file.instructions.is_empty() => &file.instructions,
            _ => without_comment(BUILT_IN),
        }
    }
}

// === impl VerifyMode ===

impl VerifyMode {
    /// Returns the name in the configuration and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Before => "before",
            Self::Background => "background",
            Self::Off => "off",
        }
    }
}

// === impl PromptFile ===

impl PromptFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, instructions: String::new() }
    }

    /// Reads the instructions. An absent file is an error only if it `is_required`.
    pub(super) fn read(&mut self, is_required: bool) -> Result<(), String> {
        let path = self.path.display();
        let unreadable = |cause: io::Error| format!("{path} cannot be read: {cause}");
        match fs::metadata(&self.path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && !is_required => return Ok(()),
            Err(cause) => return Err(unreadable(cause)),
            Ok(file) if file.len() > PROMPT_FILE_MAX => {
                return Err(format!("{path} is larger than {PROMPT_FILE_MAX} bytes"));
            }
            Ok(_) => {}
        }
        let bytes = fs::read(&self.path).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8"))?;
        let instructions = without_comment(&text);
        if instructions.is_empty() {
            return Err(format!("{path} is empty"));
        }
        instructions.clone_into(&mut self.instructions);
        Ok(())
    }
}

/// Leaves out the instructions, which may be long.
impl fmt::Debug for PromptFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PromptFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Removes the comment at the beginning, which holds the version, and surrounding whitespace.
fn without_comment(text: &str) -> &str {
    let text = text.trim_start_matches('\u{feff}').trim();
    let after = text.strip_prefix("<!--").and_then(|rest| rest.split_once("-->"));
    after.map_or(text, |(_, rest)| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_instructions_are_sent_without_their_version() {
        let config = VerifyConfig::default();
        let instructions = config.instructions();
        assert!(BUILT_IN.starts_with("<!-- Instructions of the verification call, version "));
        assert!(instructions.starts_with("You check a cache"), "{instructions}");
        assert!(!instructions.contains("version 1"));
        assert!(BUILT_IN.len() < PROMPT_FILE_MAX as usize);
    }
}
