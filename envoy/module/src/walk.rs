//! The scope walker: asks Envoy's routes for one scope after the other until one answers.
//!
//! Pure over [`Routes`], so that its order is tested here against a table, without an Envoy.
#![forbid(unsafe_code)]

use crate::scope::{ANY, Steps};

/// Name of the catch-all route that ends the routes of an Ingress host: a 404 of its own, unless
/// the default scope has a route. An edit of the default backend then touches one resource, not
/// one per host.
pub const TO_DEFAULT: &[u8] = b"->default";

/// What Envoy's routes say to the scope that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Nothing,
    /// A route named [`TO_DEFAULT`].
    ToDefault,
    Route,
}

impl Answer {
    /// An answer by the name of the route. A route without a name counts as none.
    pub fn of(route_name: &[u8]) -> Answer {
        match route_name {
            b"" => Answer::Nothing,
            TO_DEFAULT => Answer::ToDefault,
            _ => Answer::Route,
        }
    }
}

/// The routes as one request sees them.
pub trait Routes {
    /// What was found for the scope of the request so far, without looking again.
    fn known(&mut self) -> Answer;
    /// The same, after making Envoy look if it has not.
    fn resolve(&mut self) -> Answer;
    /// Sets the scope and looks again.
    fn ask(&mut self, scope: &[u8]) -> Answer;
    /// The scope the request came with.
    fn steps(&mut self) -> Option<Steps>;
}

/// Finds the nearest scope with a route and leaves the request on it.
///
/// True where the host's own scope had no route and another one has: what Envoy decides by the
/// route before the filters run, it then decided without one.
pub fn walk(routes: &mut impl Routes) -> bool {
    let mut answer = routes.known();
    if answer == Answer::Route {
        return false;
    }
    // Without the early mutation there is no key, and no way to know what should have been one.
    let Some(mut steps) = routes.steps() else {
        return false;
    };
    if answer == Answer::Nothing {
        // Nothing may also mean that a filter before us dropped what was known.
        answer = routes.resolve();
    }
    let missed = answer == Answer::Nothing;
    while answer == Answer::Nothing {
        let Some(scope) = steps.step() else {
            return false;
        };
        answer = routes.ask(scope);
    }
    if answer == Answer::ToDefault && steps.current() != ANY && routes.ask(ANY) != Answer::Route {
        // No default backend: the host's own 404 answers.
        routes.ask(steps.current());
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::canonical;

    /// Scopes and the route name that each would find.
    struct Table {
        scopes: &'static [(&'static str, &'static str)],
        scope: Option<String>,
        asked: usize,
    }

    impl Table {
        fn answer(&self) -> Answer {
            let name = self.scopes.iter().find(|(key, _)| Some(*key) == self.scope.as_deref());
            Answer::of(name.map_or("", |(_, name)| name).as_bytes())
        }
    }

    impl Routes for Table {
        fn known(&mut self) -> Answer {
            self.answer()
        }
        fn resolve(&mut self) -> Answer {
            self.answer()
        }
        fn ask(&mut self, scope: &[u8]) -> Answer {
            self.scope = Some(String::from_utf8_lossy(scope).into_owned());
            self.asked += 1;
            self.answer()
        }
        fn steps(&mut self) -> Option<Steps> {
            self.scope.as_ref().map(|scope| Steps::new(scope.as_bytes()))
        }
    }

    #[track_caller]
    fn check(scopes: &'static [(&'static str, &'static str)], host: &str, want: (&str, usize)) {
        let key = canonical(host.as_bytes());
        let scope = Some(String::from_utf8_lossy(key.as_bytes()).into_owned());
        let mut table = Table { scopes, scope, asked: 0 };
        let had = table.answer();
        let missed = walk(&mut table);
        assert_eq!(missed, had == Answer::Nothing && table.answer() != Answer::Nothing, "host {host}");
        let scope = table.scope.expect("a scope was set");
        assert_eq!((scope.as_str(), table.asked), want, "host {host}");
    }

    const TABLE: &[(&str, &str)] =
        &[("shop.example.com", "shop"), ("+.example.com", "one"), ("*.example.com", "deep"), ("*", "any")];

    #[test]
    fn a_hit_asks_nothing() {
        check(TABLE, "shop.example.com", ("shop.example.com", 0));
    }

    #[test]
    fn a_miss_takes_the_nearest_wildcard() {
        check(TABLE, "a.example.com", ("+.example.com", 1));
        check(TABLE, "a.b.example.com", ("*.example.com", 3));
        check(TABLE, "a.org", ("*", 3));
        check(TABLE, "10.0.0.1", ("*", 1));
        check(TABLE, "", ("*", 1));
    }

    #[test]
    fn a_named_wildcard_is_found_in_the_walks_order() {
        check(TABLE, "*.example.com", ("+.example.com", 1));
    }

    #[test]
    fn nothing_anywhere_ends_at_the_default_scope() {
        check(&[], "a.b.c", ("*", 4));
    }

    #[test]
    fn to_default_asks_the_default_scope_once() {
        const WITH: &[(&str, &str)] = &[("a.b", "->default"), ("+.c", "->default"), ("*", "any")];
        check(WITH, "a.b", ("*", 1));
        check(WITH, "x.c", ("*", 2));
    }

    #[test]
    fn to_default_without_default_returns_to_its_own_404() {
        const WITHOUT: &[(&str, &str)] = &[("a.b", "->default"), ("*.c", "->default")];
        check(WITHOUT, "a.b", ("a.b", 2));
        check(WITHOUT, "x.c", ("*.c", 4));
        check(&[("*", "->default")], "x", ("*", 1));
        check(&[("a.b", "->default"), ("*", "->default")], "a.b", ("a.b", 2));
    }

    #[test]
    fn a_request_without_a_scope_is_left_alone() {
        let mut table = Table { scopes: TABLE, scope: None, asked: 0 };
        assert!(!walk(&mut table));
        assert_eq!((table.scope, table.asked), (None, 0));
    }
}
