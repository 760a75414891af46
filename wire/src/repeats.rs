//! What is said again and again, told apart from news.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What wasn't said for so long is news again. Longer than any wait between two attempts to connect.
const QUIET: Duration = Duration::from_secs(60);
/// Sources that are remembered; with more of them all are forgotten, and said once more.
const SOURCES_MAX: usize = 256;

/// What each source said last, so that a log says it once and not at every attempt. Clones are one memory.
#[derive(Clone, Debug)]
pub struct Repeats<K>(Arc<Mutex<HashMap<K, (String, Instant)>>>);

impl<K> Default for Repeats<K> {
    fn default() -> Repeats<K> {
        Repeats(Arc::default())
    }
}

impl<K: Eq + Hash> Repeats<K> {
    /// Notes that `source` says `text`. False when it is what it said last, less than a minute ago.
    pub fn is_news(&self, source: K, text: &str, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, at)) = said.get_mut(&source) {
            let again = last == text && now.saturating_duration_since(*at) < QUIET;
            *at = now;
            if !again {
                text.clone_into(last);
            }
            return !again;
        }
        if said.len() >= SOURCES_MAX {
            said.clear();
        }
        said.insert(source, (text.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_news_once_until_it_was_quiet() {
        let repeats = Repeats::default();
        let begun = Instant::now();
        let said =
            |source: u32, text: &str, after: u64| repeats.is_news(source, text, begun + Duration::from_secs(after));
        assert!(said(1, "no", 0));
        assert!(said(2, "no", 0), "another source");
        assert!((1..100).all(|step| !said(1, "no", step * 5)), "tried again and again");
        assert!(said(1, "yes", 500) && said(1, "no", 501), "other words");
        assert!(said(1, "no", 562), "after a quiet minute");
    }

    #[test]
    fn many_sources_are_forgotten_not_kept() {
        let repeats = Repeats::default();
        let now = Instant::now();
        for source in 0..10 * SOURCES_MAX {
            assert!(repeats.is_news(source, "no", now));
        }
        assert!(repeats.0.lock().expect("whole").len() <= SOURCES_MAX);
    }
}
