//! Names as Kubernetes allows them.

/// What [`is_label`] asks for, in words.
pub(super) const LABEL: &str =
    "at most 63 lower-case letters, digits and '-', with a letter or digit at both ends (DNS-1123 label)";

/// What [`is_subdomain`] asks for, in words.
pub(super) const SUBDOMAIN: &str = "at most 253 lower-case letters, digits, '-' and '.', with a letter \
     or digit at both ends of each part (DNS-1123 subdomain)";

/// What [`is_port_name`] asks for, in words.
pub(super) const PORT_NAME: &str = "at most 15 lower-case letters, digits and single '-', with a letter \
     among them and no '-' at an end";

pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

/// A name of a port (RFC 6335 section 5.1, lower-case).
pub(super) fn is_port_name(text: &str) -> bool {
    text.len() <= 15 && is_part(text) && text.bytes().any(|c| c.is_ascii_lowercase()) && !text.contains("--")
}

fn is_part(text: &str) -> bool {
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(edge)
        && bytes.last().copied().is_some_and(edge)
        && bytes.iter().all(|c| edge(*c) || *c == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubernetes_judges() {
        for good in ["a", "a-b", "0", "shop-1"] {
            assert!(is_label(good) && is_subdomain(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a\0", "a\u{202e}b", "ä", "a b", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad:?}");
        }
        assert!(is_subdomain("a.b-c.d") && !is_label("a.b"));
        for bad in ["a..b", ".a", "a.", "a.-b", &"a.".repeat(127)] {
            assert!(!is_subdomain(bad), "{bad:?}");
        }
        assert!(is_port_name("http-2") && is_port_name("8a"));
        for bad in ["80", "a--b", "sixteen-letters-", "sixteen-letters0", "HTTP", ""] {
            assert!(!is_port_name(bad), "{bad:?}");
        }
    }
}
