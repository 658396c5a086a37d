//! The URLs of a provider's endpoints.

use reqwest::Url;

use super::super::Endpoint;
use crate::config::{ProviderConfig, ProviderKind};

/// Version of Azure's API unless the configuration's `query` names one: the newest that is stable.
const AZURE_VERSION: &str = "2024-10-21";

/// Address of a provider's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Root of the API, with the query of every URL.
    root: Url,
    /// Each model is a deployment with a path of its own, as in Azure's API.
    has_deployments: bool,
}

impl Address {
    /// # Errors
    /// A sentence that names the key.
    pub fn of(config: &ProviderConfig) -> Result<Self, String> {
        let ProviderConfig { kind, base_url, query, .. } = config;
        let mut root = Url::parse(base_url.trim_end_matches('/')).map_err(|e| format!("base_url: {e}"))?;
        if !matches!(root.scheme(), "http" | "https") {
            return Err("base_url must begin with http:// or https://".to_owned());
        }
        // Azure's newer API is OpenAI's, below `/openai/v1`.
        let has_deployments = *kind == ProviderKind::Azure && !root.path().ends_with("/v1");
        if !query.is_empty() || has_deployments {
            let mut pairs = root.query_pairs_mut();
            pairs.extend_pairs(query);
            if has_deployments && !query.contains_key("api-version") {
                pairs.append_pair("api-version", AZURE_VERSION);
            }
        }
        if has_deployments && !root.path().ends_with("/openai") {
            root = below(&root, &["openai"]);
        }
        Ok(Self { root, has_deployments })
    }

    /// The URL of an endpoint for `model`, by its name at the provider.
    pub fn of_endpoint(&self, endpoint: Endpoint, model: &str) -> Url {
        let path: &[&str] = match endpoint {
            Endpoint::Chat => &["chat", "completions"],
            Endpoint::Responses => &["responses"],
            Endpoint::Embeddings => &["embeddings"],
        };
        // Azure's Responses API has no deployment in its path.
        if self.has_deployments && endpoint != Endpoint::Responses {
            return below(&below(&self.root, &["deployments", model]), path);
        }
        below(&self.root, path)
    }

    /// The URL of the list of models.
    pub fn models(&self) -> Url {
        below(&self.root, &["models"])
    }
}

/// The URL with these parts added to its path, encoded.
fn below(url: &Url, path: &[&str]) -> Url {
    let mut url = url.clone();
    url.path_segments_mut().expect("http URLs have a path").pop_if_empty().extend(path);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(kind: ProviderKind, base_url: &str, query: &[(&str, &str)]) -> String {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config =
            ProviderConfig { kind, base_url: base_url.to_owned(), query, ..ProviderConfig::default() };
        Address::of(&config).unwrap().of_endpoint(Endpoint::Chat, "my model").to_string()
    }

    #[test]
    fn an_openai_like_provider_has_paths_below_its_root() {
        use ProviderKind::Openai;
        assert_eq!(chat(Openai, "http://a/v1", &[]), "http://a/v1/chat/completions");
        assert_eq!(chat(Openai, "http://a", &[("k", "1 2")]), "http://a/chat/completions?k=1+2");
    }

    #[test]
    fn azure_has_a_path_for_each_deployment() {
        use ProviderKind::Azure;
        let path = "/openai/deployments/my%20model/chat/completions?api-version=";
        assert_eq!(
            chat(Azure, "https://r.openai.azure.com", &[]),
            format!("https://r.openai.azure.com{path}2024-10-21")
        );
        assert_eq!(chat(Azure, "https://a/openai/", &[("api-version", "x")]), format!("https://a{path}x"));
        assert_eq!(chat(Azure, "https://a/openai/v1", &[]), "https://a/openai/v1/chat/completions");
    }
}
