//! Whether a kept answer fits a new prompt too, asked of a model on a share of the comparisons
//! (`cache.learning.judge_rate`): what only words say of two answers can be wrong.

use std::sync::Arc;

use super::{Asked, Pipeline};
use crate::{learn::Compared, model::VerifierReply, prompt::Completion, upstream::Reuse};

// === impl Pipeline ===

impl Pipeline {
    /// Puts a model's opinion in the place of the comparison, where one is asked for and comes. Calls of tools are
    /// left to the comparison: there every argument counts.
    pub(super) async fn second_opinion(
        &self,
        asked: &Asked,
        completion: &Completion,
        compared: &mut Compared,
    ) {
        let Some((index, candidate)) = compared.decisive() else { return };
        let (entry, other) = (&candidate.entry, asked.prompt.fuzzy_text());
        let is_text = |answer: &Completion| answer.tool_calls.is_none();
        let (Some(question), Some(other)) = (entry.text.as_deref(), other) else { return };
        let reuse = Reuse { question, answer: &entry.completion.content, other };
        if !is_text(completion) || !is_text(&entry.completion) || !reuse.is_short() {
            return;
        }
        if self.check_budget(asked).is_err() {
            return;
        }
        let Some(_place) = self.learning.place_to_judge(asked.key) else { return };
        let learning = &asked.settings.cache.learning;
        let count = Arc::new(self.bookkeeper_of_checks(asked));
        let opinion =
            self.upstreams.second_opinion(reuse, &learning.judge, learning.judge_timeout, count).await;
        self.metrics.judgement(opinion);
        match opinion {
            VerifierReply::Fits => compared.judge(index, true),
            VerifierReply::Differs => compared.judge(index, false),
            VerifierReply::Nonsense | VerifierReply::Unavailable | VerifierReply::LeftOut => {}
        }
    }
}
