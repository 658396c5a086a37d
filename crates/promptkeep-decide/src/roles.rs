//! The roles of words in a prompt: source and target, first and second, agent and patient. Two prompts with equal
//! words and swapped roles ask different things, and their embeddings hardly differ.

use super::{
    lexicon::{self, hash},
    quantity::Quantity,
    word::{BREAK, CLOCK, TAKEN, Word},
};

/// One side of a relation. Opposite roles differ in the lowest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    Source = 0,
    Target = 1,
    /// The greater, earlier or preferred one.
    First = 2,
    Second = 3,
    /// The one that acts or causes.
    Agent = 4,
    /// The one that is acted on.
    Patient = 5,
}

/// The roles of a text's words.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// Key of a word, which is its stem or [`UNIT`] plus its unit, and its role.
    assigned: Vec<(u64, Role)>,
}

/// Maximum number of words in one argument.
const ARGUMENT_MAX: usize = 3;
/// Maximum number of words between a time and its place.
const TIME_REACH: usize = 4;
/// Base of the keys of units of measure. Differs from the hash of every ASCII word, whose top bit is clear.
const UNIT: u64 = 0xffff_ffff_0000_0000;

const FROM: u64 = hash("from");
const TO: u64 = hash("to");
const INTO: u64 = hash("into");
const IN: u64 = hash("in");
const BY: u64 = hash("by");
const ON: u64 = hash("on");
const OF: u64 = hash("of");
const TIME: u64 = hash("time");
const DUE: u64 = hash("due");
const COMPARING: [u64; 3] = [hash("than"), hash("over"), hash("instead")];
/// Verbs of conversion. In "to convert A to B" only the second "to" marks a target.
const MOVING: [u64; 6] =
    [hash("convert"), hash("change"), hash("switch"), hash("translate"), hash("transform"), hash("turn")];
/// Words with which "from A to B" means the same as "from B to A".
const SYMMETRIC: [u64; 4] = [hash("far"), hash("distance"), hash("between"), hash("different")];
const EFFECTS: [u64; 5] =
    [hash("effect"), hash("effects"), hash("impact"), hash("influence"), hash("consequences")];

/// Finds the roles of `words`.
pub fn extract(words: &[Word], quantities: &[Quantity]) -> Roles {
    let mut parser = Parser { words, roles: Roles::default() };
    if words.iter().any(|w| SYMMETRIC.contains(&w.hash)) {
        return parser.roles;
    }
    let directed = words.iter().any(|w| w.hash == FROM);
    for (i, word) in words.iter().enumerate() {
        match word.hash {
            FROM => parser.right(i, Role::Source),
            TO if words.get(i + 1).is_some_and(|next| MOVING.contains(&next.hash)) => {}
            TO if i > 0 && words[i - 1].hash == DUE => {
                parser.left(i - 1, Role::Patient);
                parser.right(i, Role::Agent);
            }
            TO | INTO => {
                parser.right(i, Role::Target);
                if !directed {
                    parser.left(i, Role::Source);
                }
            }
            IN => parser.place(i),
            h if COMPARING.contains(&h) => parser.both(i, Role::First, Role::Second),
            h if EFFECTS.contains(&h) => parser.effect(i),
            _ if word.info.has(lexicon::ACTION) => parser.action(i),
            _ => {}
        }
    }
    parser.conversion(quantities);
    parser.roles
}

// === impl Roles ===

impl Roles {
    /// Returns the key of a word whose role in `other` is the opposite of its role here.
    pub fn swapped(&self, other: &Self) -> Option<u64> {
        let has = |roles: &Self, key: u64, role: u8| {
            roles.assigned.iter().any(|(k, r)| *k == key && *r as u8 == role)
        };
        let opposed = |(key, role): &&(u64, Role)| {
            let (role, opposite) = (*role as u8, *role as u8 ^ 1);
            has(other, *key, opposite) && !has(other, *key, role) && !has(self, *key, opposite)
        };
        self.assigned.iter().find(opposed).map(|(key, _)| *key)
    }

    /// Counts the words that have equal roles in both texts.
    pub fn agreeing(&self, other: &Self) -> usize {
        self.assigned.iter().filter(|a| other.assigned.contains(a)).count()
    }

    fn add(&mut self, word: &Word, role: Role) {
        let key = if word.info.unit > 0 { UNIT | u64::from(word.info.unit) } else { word.stem };
        self.assigned.push((key, role));
    }
}

/// Collects the roles of one text.
struct Parser<'w> {
    words: &'w [Word],
    roles: Roles,
}

// === impl Parser ===

impl Parser<'_> {
    /// Gives `role` to the argument after word `i`: its first content words.
    fn right(&mut self, i: usize, role: Role) {
        let mut taken = 0;
        for word in self.words.iter().skip(i + 1) {
            if taken == ARGUMENT_MAX || word.is(BREAK) || ends_argument(word, taken) {
                break;
            }
            if word.is_content() && !word.info.has(lexicon::QUANTIFIER) {
                self.roles.add(word, role);
                taken += 1;
            }
        }
    }

    /// Gives `role` to the argument before word `i`.
    fn left(&mut self, i: usize, role: Role) {
        let mut taken = 0;
        for j in (0..i).rev() {
            let word = &self.words[j];
            if taken == ARGUMENT_MAX || self.words[j + 1].is(BREAK) || ends_argument(word, taken) {
                break;
            }
            if word.is_content() && !word.info.has(lexicon::QUANTIFIER) {
                self.roles.add(word, role);
                taken += 1;
            }
        }
    }

    fn both(&mut self, i: usize, left: Role, right: Role) {
        self.left(i, left);
        self.right(i, right);
    }

    /// Gives roles to subject and object of the verb `i`; exchanged in the passive voice.
    fn action(&mut self, i: usize) {
        let by = (i + 1..(i + 4).min(self.words.len())).find(|j| self.words[*j].hash == BY);
        match by {
            Some(by) => {
                self.left(i, Role::Patient);
                self.right(by, Role::Agent);
            }
            None => {
                let skip =
                    usize::from(self.words.get(i + 1).is_some_and(|w| w.info.has(lexicon::PREPOSITION)));
                self.left(i, Role::Agent);
                self.right(i + skip, Role::Patient);
            }
        }
    }

    /// Handles "effect of X on Y".
    fn effect(&mut self, i: usize) {
        if self.words.get(i + 1).is_none_or(|w| w.hash != OF) {
            return;
        }
        let Some(on) = (i + 2..(i + 8).min(self.words.len())).find(|j| self.words[*j].hash == ON) else {
            return;
        };
        self.right(i + 1, Role::Agent);
        self.right(on, Role::Patient);
    }

    /// Handles "6 pm in Tokyo", which gives a time, and "what time in Rome", which asks for one.
    fn place(&mut self, i: usize) {
        for word in self.words[i.saturating_sub(TIME_REACH)..i].iter().rev() {
            if word.is(TAKEN) && (word.is(CLOCK) || word.info.has(lexicon::MERIDIEM)) {
                return self.right(i, Role::Source);
            }
            if word.hash == TIME {
                return self.right(i, Role::Target);
            }
        }
    }

    /// A unit without a number is the target of converting a number with a unit.
    fn conversion(&mut self, quantities: &[Quantity]) {
        let free = self.words.iter().find(|w| w.info.unit > 0 && !w.is(TAKEN));
        let given = quantities.iter().find(|q| q.unit > 0);
        if let (Some(free), Some(given)) = (free, given) {
            self.roles.add(free, Role::Target);
            self.roles.assigned.push((UNIT | u64::from(given.unit), Role::Source));
        }
    }
}

/// Prepositions and verbs end an argument; other function words end it once it has a word.
const fn ends_argument(word: &Word, taken: usize) -> bool {
    let relates = word.info.has(lexicon::PREPOSITION | lexicon::ACTION);
    relates || (taken > 0 && word.info.has(lexicon::STOP))
}
