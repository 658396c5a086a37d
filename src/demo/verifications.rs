//! The verifications of a run, as the server's `/metrics` count them.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::Serialize;

const VERDICTS: &str = "promptkeep_verifications_total{verdict=\"";
const COST: &str = "promptkeep_verification_cost_usd_total ";

/// Verifications of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verifications {
    /// By verdict: `yes` (at least one kept answer fits), `no`, or why there was none.
    pub verdicts: BTreeMap<String, usize>,
    /// US dollars.
    pub cost_usd: f64,
}

/// Reads the metrics of the server at `http`.
pub async fn read(http: SocketAddr) -> reqwest::Result<Verifications> {
    let reply = reqwest::get(format!("http://{http}/metrics")).await?.error_for_status()?;
    Ok(Verifications::parse(&reply.text().await?))
}

impl Verifications {
    /// Verifications whose model was called.
    pub fn calls(&self) -> usize {
        self.verdicts.iter().filter(|(verdict, _)| *verdict != "skipped").map(|(_, count)| count).sum()
    }

    fn parse(metrics: &str) -> Self {
        let mut all = Self::default();
        for line in metrics.lines() {
            if let Some((verdict, count)) =
                line.strip_prefix(VERDICTS).and_then(|rest| rest.split_once("\"} "))
            {
                all.verdicts.insert(verdict.to_owned(), count.parse().unwrap_or_default());
            } else if let Some(usd) = line.strip_prefix(COST) {
                all.cost_usd = usd.parse().unwrap_or_default();
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{FittingSet, VerifierReply},
        telemetry::metrics::Metrics,
    };

    #[test]
    fn the_exported_metrics_are_read() {
        let metrics = Metrics::new();
        for reply in
            [VerifierReply::Fits(FittingSet::default()), VerifierReply::TimedOut, VerifierReply::Skipped]
        {
            metrics.verification(reply);
        }
        metrics.verification_cost(0.25);
        for text in [metrics.encode(), metrics.encode_plain()] {
            let read = Verifications::parse(&text);
            assert_eq!(
                (read.verdicts.len(), read.verdicts["no"], read.verdicts["timeout"]),
                (6, 1, 1),
                "{text}"
            );
            assert_eq!((read.calls(), read.cost_usd), (2, 0.25));
        }
    }
}
