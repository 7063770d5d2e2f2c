//! The config of the early mutation: headers to set on each request of a listener.
//!
//! Words of `name=value`, separated by white space: `x-vip=vip0 x-sni=@sni`. A value that starts
//! with `@` is taken from the connection. The control plane writes this, so any mistake in it is
//! refused whole: Envoy then rejects the listener and says why.
#![forbid(unsafe_code)]

/// A header the module sets, replacing what the client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    pub name: String,
    pub value: Value,
}

/// Where the value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    /// `@sni`: the server name the TLS client asked for, lower case; without one, no header.
    RequestedServerName,
}

/// Reads a config; the error names the word at fault.
pub fn parse(config: &[u8]) -> Result<Vec<Constant>, String> {
    let config = std::str::from_utf8(config).map_err(|error| error.to_string())?;
    let mut constants: Vec<Constant> = Vec::new();
    for word in config.split_ascii_whitespace() {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not name=value"))?;
        if !is_header_name(name) {
            return Err(format!("`{word}`: the header name is not of a-z, 0-9 and -"));
        }
        if name == "x-scope" || constants.iter().any(|known| known.name == name) {
            return Err(format!("`{word}`: the header is set twice"));
        }
        let value = match value {
            "@sni" => Value::RequestedServerName,
            text if text.is_empty() || text.starts_with('@') => {
                return Err(format!("`{word}`: the value is not known"));
            }
            text if text.bytes().all(|byte| byte.is_ascii_graphic()) => Value::Text(text.into()),
            _ => return Err(format!("`{word}`: the value is not printable ASCII")),
        };
        constants.push(Constant { name: name.into(), value });
    }
    Ok(constants)
}

fn is_header_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_order() {
        let vip = Constant { name: "x-vip".into(), value: Value::Text("shop/vip=0".into()) };
        let sni = Constant { name: "x-sni".into(), value: Value::RequestedServerName };
        assert_eq!(parse(b" x-vip=shop/vip=0\n\tx-sni=@sni "), Ok(vec![vip, sni]));
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn mistakes_are_refused() {
        for config in [
            "x-vip",
            "=v",
            "X-Vip=v",
            ":path=/",
            "x-vip=",
            "x-vip=@nope",
            "x-vip=a x-vip=b",
            "x-scope=a",
            "x-vip=ü",
        ] {
            assert!(parse(config.as_bytes()).is_err(), "{config}");
        }
        assert!(parse(b"x-vip=\xFF").is_err());
    }
}
