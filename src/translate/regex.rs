//! Which regular expressions Envoy takes and reads as their author does: those
//! of RE2 that stay small in it. What only Rust's own dialect knows is refused
//! here, in words, before an Envoy refuses the whole table it stands in.
//!
//! Envoy 1.40 gives RE2 bytes as Latin-1: `[ä]` would be a class of two bytes, and
//! `\x{100}` is an error. Paths of requests are ASCII, so patterns are.
//! Source: RE2, "Syntax" and parse.cc; the golden case `regex-dialect` asks Envoy.

use regex_syntax::ast::{
    AssertionKind, Ast, ClassBracketed, ClassSet, ClassSetItem, ClassUnicode, ClassUnicodeKind, Flag, Flags,
    FlagsItemKind, GroupKind, HexLiteralKind, Literal, LiteralKind, RepetitionKind, RepetitionRange, Span,
    SpecialLiteralKind, parse::ParserBuilder,
};

/// Bytes of a pattern.
const TEXT_MAX: usize = 1_024;
/// Groups in groups.
const NEST_MAX: u32 = 100;
/// RE2 refuses more copies of one thing, repetitions in repetitions multiplied.
const REPEAT_MAX: u32 = 1_000;
/// Instructions of RE2's program by our own count, which is never below RE2's.
/// The engines' own limit is 65,536.
const PROGRAM_MAX: u64 = 50_000;
/// Instructions of a class that has a name. Measured: `\pS`, the largest, has 19.
const NAMED_CLASS: u64 = 24;

/// What may follow `\p`: the general categories. Scripts have no letters in ASCII.
const CATEGORIES: [&str; 35] = [
    "Any", "C", "Cc", "Cf", "Co", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl",
    "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zs", "Latin",
];

/// Whether Envoy takes this as a pattern; else why not, to follow the pattern's text.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    if pattern.len() > TEXT_MAX {
        return Err(format!("is a regular expression longer than {TEXT_MAX} bytes"));
    }
    if let Some(c) = pattern.chars().find(|c| !c.is_ascii()) {
        let mut bytes = [0; 4];
        let escaped: String = c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect();
        let c = c.escape_debug();
        return Err(format!(
            "is a regular expression with '{c}', but paths of requests are ASCII: write {escaped}"
        ));
    }
    let ast = ParserBuilder::new().nest_limit(NEST_MAX).build().parse(pattern);
    let ast = ast.map_err(|why| format!("is no regular expression: {}", why.kind()))?;
    match size(&ast, REPEAT_MAX) {
        Ok(size) if size > PROGRAM_MAX => Err("is a regular expression that grows too large".to_owned()),
        Ok(_) => Ok(()),
        Err(Refusal::Repeated) => Err(format!(
            "is a regular expression that repeats something more than {REPEAT_MAX} times: RE2 takes no more"
        )),
        Err(Refusal::Unknown(span)) => {
            let part = super::shortened(&pattern[span.start.offset..span.end.offset]);
            Err(format!(
                "is a regular expression with '{part}', which Envoy's RE2 does not know or reads otherwise"
            ))
        }
    }
}

enum Refusal {
    /// Not in RE2's syntax, or there of another meaning.
    Unknown(Span),
    Repeated,
}

/// RE2's instructions for this, at most. `repeats`: how often it may be repeated
/// where it stands (RE2 divides, rounding down).
fn size(ast: &Ast, repeats: u32) -> Result<u64, Refusal> {
    match ast {
        Ast::Empty(_) => Ok(1),
        Ast::Flags(set) => flags(&set.flags).map(|()| 1),
        Ast::Literal(it) => literal(it),
        Ast::Dot(_) => Ok(NAMED_CLASS),
        Ast::Assertion(assertion) => match assertion.kind {
            AssertionKind::StartLine
            | AssertionKind::EndLine
            | AssertionKind::StartText
            | AssertionKind::EndText
            | AssertionKind::WordBoundary
            | AssertionKind::NotWordBoundary => Ok(1),
            _ => Err(Refusal::Unknown(assertion.span)),
        },
        Ast::ClassUnicode(class) => category(class),
        Ast::ClassPerl(_) => Ok(NAMED_CLASS),
        Ast::ClassBracketed(class) => bracketed(class),
        Ast::Repetition(repetition) => {
            // `a**` is no repetition to RE2.
            if matches!(*repetition.ast, Ast::Repetition(_)) {
                return Err(Refusal::Unknown(repetition.span));
            }
            let copies = copies(&repetition.op.kind);
            let repeats = repeats / copies;
            if repeats == 0 {
                return Err(Refusal::Repeated);
            }
            let one = size(&repetition.ast, repeats)? + 2;
            Ok(u64::from(copies).saturating_mul(one).saturating_add(2))
        }
        Ast::Group(group) => {
            match &group.kind {
                GroupKind::CaptureIndex(_) => {}
                GroupKind::CaptureName { name, .. } if is_word(&name.name) => {}
                GroupKind::CaptureName { name, .. } => return Err(Refusal::Unknown(name.span)),
                GroupKind::NonCapturing(set) => flags(set)?,
            }
            Ok(size(&group.ast, repeats)? + 2)
        }
        Ast::Alternation(several) => sum(&several.asts, repeats),
        Ast::Concat(several) => sum(&several.asts, repeats),
    }
}

fn sum(several: &[Ast], repeats: u32) -> Result<u64, Refusal> {
    several.iter().try_fold(0, |sum: u64, ast| Ok(sum.saturating_add(size(ast, repeats)? + 1)))
}

fn flags(flags: &Flags) -> Result<(), Refusal> {
    for item in &flags.items {
        match item.kind {
            FlagsItemKind::Negation
            | FlagsItemKind::Flag(
                Flag::CaseInsensitive | Flag::MultiLine | Flag::DotMatchesNewLine | Flag::SwapGreed,
            ) => {}
            FlagsItemKind::Flag(Flag::Unicode | Flag::CRLF | Flag::IgnoreWhitespace) => {
                return Err(Refusal::Unknown(flags.span));
            }
        }
    }
    Ok(())
}

fn literal(literal: &Literal) -> Result<u64, Refusal> {
    let known = match &literal.kind {
        LiteralKind::Verbatim | LiteralKind::Meta | LiteralKind::Superfluous => true,
        LiteralKind::HexFixed(HexLiteralKind::X) | LiteralKind::HexBrace(HexLiteralKind::X) => true,
        LiteralKind::HexFixed(_) | LiteralKind::HexBrace(_) | LiteralKind::Octal => false,
        LiteralKind::Special(kind) => *kind != SpecialLiteralKind::Space,
    };
    // `(?i)`: a letter has two forms.
    if known && literal.c.is_ascii() { Ok(3) } else { Err(Refusal::Unknown(literal.span)) }
}

fn bracketed(class: &ClassBracketed) -> Result<u64, Refusal> {
    let ClassSet::Item(item) = &class.kind else {
        // `&&`, `--` and `~~` are plain characters to RE2.
        return Err(Refusal::Unknown(class.span));
    };
    let one = std::slice::from_ref(item);
    let items = if let ClassSetItem::Union(union) = item { &union.items } else { one };
    let mut size = 4;
    for item in items {
        size += match item {
            ClassSetItem::Empty(_) => 0,
            ClassSetItem::Literal(it) => literal(it)?,
            ClassSetItem::Range(range) => literal(&range.start)? + literal(&range.end)?,
            ClassSetItem::Ascii(_) | ClassSetItem::Perl(_) => NAMED_CLASS,
            ClassSetItem::Unicode(class) => category(class)?,
            // A bracket in brackets is a plain character to RE2.
            ClassSetItem::Bracketed(inner) => return Err(Refusal::Unknown(inner.span)),
            ClassSetItem::Union(inner) => return Err(Refusal::Unknown(inner.span)),
        };
    }
    Ok(size)
}

fn category(class: &ClassUnicode) -> Result<u64, Refusal> {
    let known = match &class.kind {
        ClassUnicodeKind::OneLetter(letter) => CATEGORIES.contains(&letter.to_string().as_str()),
        ClassUnicodeKind::Named(name) => CATEGORIES.contains(&name.as_str()),
        ClassUnicodeKind::NamedValue { .. } => false,
    };
    if known { Ok(NAMED_CLASS) } else { Err(Refusal::Unknown(class.span)) }
}

/// How many copies RE2 makes of what is repeated; it counts these.
fn copies(kind: &RepetitionKind) -> u32 {
    match kind {
        RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 1,
        RepetitionKind::Range(RepetitionRange::Exactly(n) | RepetitionRange::AtLeast(n)) => (*n).max(1),
        RepetitionKind::Range(RepetitionRange::Bounded(_, n)) => (*n).max(1),
    }
}

/// RE2's names of groups.
fn is_word(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn taken(patterns: &[&str]) {
        for pattern in patterns {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
    }

    #[track_caller]
    fn refused(patterns: &[(&str, &str)]) {
        for (pattern, why) in patterns {
            let said = check(pattern).expect_err(pattern);
            assert!(said.contains(why), "{pattern}: {said}");
        }
    }

    #[test]
    fn what_both_dialects_know() {
        taken(&[
            "/v[0-9]+/.*",
            r"/(?i)a(?-i:b)(?s:.)(?U)c*",
            r"/\x{6f}\x6F\.\-\/\d\W[\d-][]a][^]a]",
            r"/(?P<name>a)(?<other>b)|",
            r"/\_\pL\p{Lu}\P{Lu}[\pN[:alpha:][:^digit:]]",
            r"/a{2,3}b{2,}?c{0}(d*)*(^)*",
        ]);
    }

    #[test]
    fn what_only_rust_knows() {
        let unknown = "does not know or reads otherwise";
        refused(&[
            (r"/\u{6f}.*", r"with '\\u{6f}', which Envoy's RE2 does not know"),
            (r"/\u006f", unknown),
            (r"/\U0000006f", unknown),
            (r"/\x{100}", unknown),
            (r"/[\x00-\xff]", unknown),
            ("/(?x)a", unknown),
            ("/(?R)a", unknown),
            ("/(?-u)a", unknown),
            ("/[a-z&&[^b]]", unknown),
            ("/[a-z--b]", unknown),
            ("/[a-z~~b]", unknown),
            ("/[a[b]]", unknown),
            (r"/\b{start}a", unknown),
            (r"/\<a\>", unknown),
            ("/a**", unknown),
            ("/a{2}{3}", unknown),
            (r"/\p{Letter}", unknown),
            (r"/\p{sc=Greek}", unknown),
            ("/(?P<a.b>c)", unknown),
        ]);
    }

    #[test]
    fn what_nobody_knows_or_can_pay() {
        refused(&[
            ("/(", "unclosed group"),
            ("/(?=a)", "look-around"),
            (r"/(a)\1", "backreferences"),
            ("/(a{1000}){1000}", "more than 1000 times"),
            ("/a{1001}", "more than 1000 times"),
            ("/(a{32}){32}", "more than 1000 times"),
            ("/(abc|def|ghi|[jkl-z]){900}", "grows too large"),
            ("/[\u{e4}]", "paths of requests are ASCII: write %C3%A4"),
            (&"(".repeat(600), "no regular expression"),
            (&"/a".repeat(600), "longer than 1024 bytes"),
        ]);
        taken(&["/a{1000}", "/(a{31}){32}"]);
    }
}
