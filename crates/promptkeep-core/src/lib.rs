//! Shared vocabulary of the promptkeep cache: plain data and pure functions, without transport, store or runtime.
//!
//! * [`prompt`]: the [`Prompt`](prompt::Prompt), its [`Completion`](prompt::Completion) and the cache directives of a
//!   request;
//! * [`key`]: the [`CacheKey`](key::CacheKey) of a prompt, which an exact hit must match, and its
//!   [`Scope`](key::Scope), which a semantic hit must match;
//! * [`embedding`]: vectors of length one;
//! * [`entry`]: cached entries, candidates for a semantic hit, selectors for invalidation;
//! * [`model`]: tiers, routes, upstream attempts and their states;
//! * [`outcome`] and [`error`]: how a request ended.
//!
//! # Example
//!
//! Two prompts that differ in the last user text only share a scope, and have different keys:
//!
//! ```
//! use promptkeep_core::{
//!     key::{self, Owner},
//!     prompt::{Message, Prompt, Role},
//! };
//!
//! let prompt = |text: &str| Prompt {
//!     namespace: "support".to_owned(),
//!     model: "auto".to_owned(),
//!     messages: vec![Message::new(Role::System, "Be brief."), Message::new(Role::User, text)],
//!     ..Prompt::default()
//! };
//! let (question, paraphrase) = (prompt("How do I reset my password?"), prompt("Password reset, how?"));
//! question.validate()?;
//!
//! let owner = Owner::Tenant("acme".to_owned());
//! let (key, scope) = key::of(&owner, &question);
//! let (other_key, other_scope) = key::of(&owner, &paraphrase);
//! assert_eq!(scope, other_scope);
//! assert_ne!(key, other_key);
//!
//! // The prompt of another tenant has another key.
//! assert_ne!(key::of(&Owner::Tenant("globex".to_owned()), &question).0, key);
//! # Ok::<(), promptkeep_core::error::Error>(())
//! ```

pub mod codec;
pub mod embedding;
pub mod entry;
pub mod error;
pub mod key;
pub mod model;
pub mod outcome;
pub mod prompt;
